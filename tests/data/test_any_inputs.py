"""Images of any size and mode, lists of them, texts, other arrays, and batches of a function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sparsemend import data
from sparsemend.data import DataSet, Preprocessing
from sparsemend.errors import SparsemendError

Image = pytest.importorskip("PIL.Image")

MODES = ("RGB", "L", "RGBA", "P", "1", "LA", "CMYK")


def photos(folder: Path, count: int = 14) -> Path:
    """Photos of all modes and of sizes of every aspect."""
    folder.mkdir()
    for number in range(count):
        generator = np.random.default_rng(number)
        size = (int(generator.integers(5, 40)), int(generator.integers(5, 40)), 3)
        pixels = generator.integers(0, 256, size, dtype=np.uint8)
        mode = MODES[number % len(MODES)]
        Image.fromarray(pixels).convert(mode).save(
            folder / f"{number:02}.{'tif' if mode in ('CMYK', 'LA') else 'png'}"
        )
    return folder


# ---------------------------------------------------------------------------- images


def test_photos_of_any_size_and_mode(tmp_path: Path) -> None:
    how = Preprocessing(20, (16, 12), (0.5,) * 3, (0.25,) * 3, "bicubic", 3)
    found = data.load(photos(tmp_path / "photos"), preprocessing=how)
    inputs = found.calibration(14)
    assert inputs.shape == (14, 3, 16, 12)
    assert inputs.min() >= -2
    assert inputs.max() <= 2
    assert not found.has_labels
    gray = data.load(tmp_path / "photos", preprocessing=Preprocessing((8, 9), channels=1))
    assert gray.calibration(14).shape == (14, 1, 8, 9)


def test_one_colour_stays_what_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (31, 7), (10, 20, 30)).save(tmp_path / "one.png")
    found = data.load(tmp_path, preprocessing=Preprocessing(resize=9, crop=(9, 9)))
    wanted = torch.tensor([10, 20, 30]).view(1, 3, 1, 1) / 255
    assert torch.equal(found.calibration(1), wanted.expand(1, 3, 9, 9))


@pytest.mark.parametrize("size", [(10, 17), (17, 10), (9, 9), (40, 13)])
def test_it_is_what_torchvision_does(size: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    theirs = transforms.Compose([transforms.Resize(11), transforms.CenterCrop((8, 7))])(image)
    ours = Preprocessing(resize=11, crop=(8, 7)).fit(image)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_sizes_that_differ_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SparsemendError, match=r"differ in size.*--resize 256 --crop 224"):
        data.load(photos(tmp_path / "photos")).calibration(14)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"resize": 0}, "resize does not fit"),
        ({"crop": (3, -1)}, "crop does not fit"),
        ({"interpolation": "best"}, "unknown interpolation: got 'best'"),
        ({"mean": (0.5,)}, "do not go together"),
    ],
)
def test_bad_preprocessing(values: dict[str, Any], text: str) -> None:
    with pytest.raises(SparsemendError, match=text):
        Preprocessing(**values)


def test_a_list_of_images(tmp_path: Path) -> None:
    names = [path.name for path in sorted(photos(tmp_path / "photos").iterdir())]
    path = tmp_path / "chosen.txt"
    how = Preprocessing((4, 4), channels=3)
    path.write_text("\n".join(f"photos/{name}" for name in names[:3]) + "\n\n")
    assert data.load(path, preprocessing=how).calibration(3).shape == (3, 3, 4, 4)
    path.write_text("photos/nowhere.png")
    with pytest.raises(SparsemendError, match=r"images that do not exist.*nowhere\.png"):
        data.load(path)


# ---------------------------------------------------------------------------- texts


class Tokenizer:
    """Lengths of words, padded to the longest; a second text comes behind the first."""

    model_max_length = 6

    def __call__(self, *columns: list[str], max_length: int, **_: object) -> dict[str, Tensor]:
        rows = [" ".join(parts).split()[:max_length] for parts in zip(*columns, strict=True)]
        longest = max(map(len, rows))
        padded = [[*map(len, row), *[0] * (longest - len(row))] for row in rows]
        ids = torch.tensor(padded)
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def words(found: DataSet) -> list[list[int]]:
    batch = found.calibration(found.train_size)
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return sorted(ids[mask.bool()].tolist() for ids, mask in rows)


@pytest.mark.parametrize(
    ("name", "content", "columns", "expected"),
    [
        ("a.txt", "one\n\nfour five\n", (), [[3], [4, 4]]),
        ("a.csv", "id,sentence\n1,one\n2,four five\n", (), [[3], [4, 4]]),
        ("a.csv", "id,said\n1,one\n2,four five\n", ("said",), [[3], [4, 4]]),
        ("a.csv", 'one,"four, five",1.0\nsix,seven,2.0\n', ("0", "1"), [[3, 5], [3, 5, 4]]),
        ("a.csv", "text\none\n", (), [[3]]),
        ("a.csv", "one\nseven\n", (), [[3], [5]]),
        ("a.tsv", "text\tlabel\none\t1\n", (), [[3]]),
        ("a.txt", "a b c d e f g h", (), [[1] * 6]),
    ],
)
def test_texts(
    tmp_path: Path, name: str, content: str, columns: tuple[str, ...], expected: list[list[int]]
) -> None:
    path = tmp_path / name
    path.write_text(content)
    found = data.load(path, tokenizer=Tokenizer(), columns=columns)
    assert words(found) == expected
    assert not found.has_labels


def test_texts_in_parquet(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "some.parquet"
    pq.write_table(pa.table({"question": ["one", "", "four five"], "n": [1, 2, 3]}), path)
    assert words(data.load(path, tokenizer=Tokenizer())) == [[3], [4, 4]]
    pairs = data.load(path, tokenizer=Tokenizer(), columns=("question", "question"))
    assert words(pairs) == [[3, 3], [4, 4, 4, 4]]


@pytest.mark.parametrize(
    ("name", "content", "columns", "text"),
    [
        ("a.csv", "one,two\n1,2\n", (), r"which column .*is not known: got \['one', 'two'\]"),
        ("a.csv", "one,two\n1,2\n", ("three",), "allowed: one, two; name it with --column"),
        ("a.txt", "\n", (), "has no texts"),
    ],
)
def test_texts_that_are_not_found(
    tmp_path: Path, name: str, content: str, columns: tuple[str, ...], text: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SparsemendError, match=text):
        data.load(path, tokenizer=Tokenizer(), columns=columns)


def test_texts_need_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(SparsemendError, match=r"without a tokenizer; .*--tokenizer"):
        data.load(tmp_path / "a.txt")

    def broken(*_: object, **__: object) -> None:
        raise ValueError("no padding token")

    with pytest.raises(SparsemendError, match="ValueError: no padding token"):
        data.load(tmp_path / "a.txt", tokenizer=broken).calibration(1)


# ---------------------------------------------------------------------------- arrays


def test_arrays_that_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    frames = np.arange(24.0).reshape(6, 4)
    np.savez(path, frames=frames)
    found = data.load(path).calibration(6)
    assert found.dtype == torch.float32
    assert torch.equal(found.sort(dim=0).values, torch.from_numpy(frames).float())
    tokens = np.arange(12, dtype=np.int32).reshape(6, 2)
    np.savez(path, input_ids_train=tokens, mask_train=tokens > 3, test_input_ids=tokens)
    both = data.load(path)
    assert (both.train_size, both.test_size, both.has_labels) == (6, 6, False)
    batch = both.calibration(2)
    assert {name: tensor.dtype for name, tensor in batch.items()} == dict.fromkeys(
        ("input_ids", "mask"), torch.int64
    )
    np.savez(path, one=np.zeros((3, 2)), two=np.zeros((4, 2)))
    with pytest.raises(SparsemendError, match="no inputs that belong together"):
        data.load(path).calibration(1)


# ---------------------------------------------------------------------------- functions


def test_batches_of_a_function(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "def batches():\n"
        "    return [{'x': torch.full((4, 2), float(i))} for i in range(6)]\n"
        "def none():\n"
        "    return []\n"
        "def broken():\n"
        "    raise RuntimeError('no disk')\n"
    )
    found = data.load(f"{file}:batches")
    assert found.train_size == 24
    assert found.shares(512, 256) == (16, 8)
    seen = found.calibration_batches(16, 3, seed=1)
    unseen = found.heldout_batches(8, 3, calibration_size=16, seed=1)
    values = [float(batch["x"][0, 0]) for batch in (*seen, *unseen)]
    assert (len(seen), len(unseen)) == (4, 2)
    assert sorted(values) == [0, 1, 2, 3, 4, 5]
    for name, text in (("none", "gave no batches"), ("broken", "RuntimeError: no disk")):
        with pytest.raises(SparsemendError, match=text):
            data.load(f"{file}:{name}")


# ---------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("count", [1, 2, 3, 60, 300, 767, 768, 1000])
def test_both_samples_share_what_there_is(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, frames=np.arange(2.0 * count).reshape(count, 2))
    found = data.load(path)
    seen, unseen = found.shares(512, 256)
    assert seen >= 1
    assert seen + unseen == min(count, 768)
    assert (unseen > 0) == (count > 1)
    assert abs(2 * unseen - seen) <= 2 or count == 1
    first = found.calibration(seen)
    if unseen:
        rest = found.heldout(unseen, calibration_size=seen)
        assert not set(first[:, 0].tolist()) & set(rest[:, 0].tolist())
    assert found.shares(512, 0) == (min(count, 512), 0)
