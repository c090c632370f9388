"""The examples run, and stay short."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import sparsemend as sm

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
LONGEST = 60


@pytest.fixture
def main(digits_cache, tmp_path, monkeypatch):  # noqa: ARG001
    """The main function of an example, in an empty folder and with little time."""
    monkeypatch.chdir(tmp_path)
    compress = sm.compress
    monkeypatch.setattr(
        sm, "compress", lambda *args, **options: compress(*args, **{**options, "budget": "1s"})
    )
    folder = EXAMPLES[0].parent
    return lambda name: runpy.run_path(str(folder / f"{name}.py"))["main"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_they_are_short_and_say_what_they_show(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LONGEST
    assert text.startswith('"""')


@pytest.mark.filterwarnings("ignore::sparsemend.SparsemendWarning")
@pytest.mark.parametrize("name", ["first_steps", "own_network"])
def test_they_run(main, name, capsys):
    main(name)()
    assert "% sparse" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::sparsemend.SparsemendWarning")
def test_photos(main, capsys):
    pytest.importorskip("timm")
    main("timm_photos")()
    assert "60 photos: 40 to calibrate with, 20 to judge on" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::sparsemend.SparsemendWarning")
def test_sentences(main, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "encoder"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "quick", "brown", "fox"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=len(words), num_hidden_layers=1, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(f"a {'quick ' * (n % 5)}fox" for n in range(30)))
    main("sentence_encoder")(str(folder), str(lines), str(tmp_path / "out"))
    assert "% sparse" in capsys.readouterr().out
    again = transformers.BertModel.from_pretrained(tmp_path / "out")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("a fox")["input_ids"]
    assert again.config.hidden_size == 8
