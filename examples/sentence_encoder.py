"""A sentence encoder of transformers and lines of text (extra ``hf``).

python examples/sentence_encoder.py MODEL-FOLDER LINES.txt [OUT-FOLDER]
"""

import sys

import sparsemend as sm


def main(folder: str, lines: str, out: str = "") -> None:
    loaded = sm.models.load(f"hf:{folder}")
    data = sm.data.load(lines, tokenizer=loaded.tokenizer)

    seen, unseen = data.shares(512, 256)
    result = sm.compress(
        loaded.model,
        data.calibration_batches(seen, 32),
        0.5,
        heldout=data.heldout_batches(unseen, 32, calibration_size=seen),
        exclude="pooler*",
        output="last_hidden_state",
        budget="5min",
    )
    print(result)
    if out:
        result.save_pretrained(out, loaded.tokenizer)  # what from_pretrained reads


if __name__ == "__main__":
    main(*sys.argv[1:])
