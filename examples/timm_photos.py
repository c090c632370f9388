"""A network of timm and a folder of photos of any sizes (extra ``timm``).

python examples/timm_photos.py [FOLDER] [NAME]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import sparsemend as sm


def photos(folder: Path, count: int = 60) -> Path:
    """Some images, where there are none at hand."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        height, width = generator.integers(80, 300, 2)
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / f"{number:03}.jpg")
    return folder


def main(folder: str = "", name: str = "resnet10t") -> None:
    # pretrained=True lets timm download its weights; these are random ones.
    loaded = sm.models.load(f"timm:{name}", arguments={"pretrained": False})
    print(loaded.preprocessing)
    path = Path(folder) if folder else photos(Path("sparsemend-examples/photos"))
    data = sm.data.load(path, preprocessing=loaded.preprocessing)

    seen, unseen = data.shares(512, 256)
    print(f"{data.train_size} photos: {seen} to calibrate with, {unseen} to judge on")
    result = sm.compress(
        loaded.model,
        data.calibration_batches(seen, 32),
        0.8,
        heldout=data.heldout_batches(unseen, 32, calibration_size=seen),
        budget="2min",
    )
    print(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
