"""First steps: a small trained network, made sparse, compared with the dense one, and saved."""

from pathlib import Path

import sparsemend as sm

FOLDER = Path("sparsemend-examples")


def main() -> None:
    loaded = sm.models.load("digits")
    data = sm.data.load("digits", preprocessing=loaded.preprocessing)
    batches = data.calibration_batches(512, 128)
    heldout = data.heldout_batches(256, 128, calibration_size=512)

    result = sm.compress(loaded.model, batches, 0.95, heldout=heldout)
    print(result)
    for name, network in (("dense", loaded.model), ("sparse", result.model)):
        print(f"{name:<7}{sm.evaluate(network, data.test_batches())}")

    FOLDER.mkdir(exist_ok=True)
    result.save(FOLDER / "sparse.safetensors")
    sm.report(result).save(FOLDER / "report.html")

    # The file has the keys of the dense network, and loads into it.
    fresh = sm.models.create("digits")
    sm.load_checkpoint(fresh, FOLDER / "sparse.safetensors")
    print(sm.agreement(fresh, result.model, heldout))


if __name__ == "__main__":
    main()
