"""Image folders as they are found: what is a class, what is an image, and of which kind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsemend import data
from sparsemend.data import DataSet
from sparsemend.errors import SparsemendError

Image = pytest.importorskip("PIL.Image")

CLASSES, PER_CLASS = ("ant", "cat", "dog"), 4


def picture(number: int, mode: str = "RGB", size: int = 6) -> object:
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def write(path: Path, number: int = 0, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number, mode).save(path)  # type: ignore[attr-defined]
    return path


def make(root: Path) -> Path:
    for split in ("train", "test"):
        for order, name in enumerate(CLASSES):
            for number in range(PER_CLASS):
                write(root / split / name / f"{number}.png", 10 * order + number)
    return root


def seen(images: DataSet) -> tuple[object, ...]:
    inputs, labels = images.test()
    return images.train_size, images.num_classes, labels.tolist(), inputs.double().sum().item()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "images")


def empty_folder(split: Path) -> None:
    (split / "aaa").mkdir()


def annotations(split: Path) -> None:
    (split / "annotations" / "more").mkdir(parents=True)
    (split / "annotations" / "boxes.json").write_text("{}")


def macos(split: Path) -> None:
    (split / "__MACOSX" / "cat").mkdir(parents=True)
    (split / "__MACOSX" / "cat" / "._0.png").write_bytes(b"no image")
    (split / "cat" / "._0.png").write_bytes(b"no image")


def previews(split: Path) -> None:
    for folder in (split, split / "cat"):
        write(folder / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.jpg")


def hidden(split: Path) -> None:
    write(split / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png")
    write(split / ".thumbs" / "0.png")
    write(split / "cat" / ".0.png")
    write(split.parent / ".trash" / "0.png")


def named_as_an_image(split: Path) -> None:
    (split / "cat" / "folder.png").mkdir()


@pytest.mark.parametrize(
    "add", [empty_folder, annotations, macos, previews, hidden, named_as_an_image]
)
def test_what_is_no_class_and_no_image_changes_nothing(
    root: Path, add: Callable[[Path], None]
) -> None:
    before = seen(data.load(root))
    assert before[:3] == (12, 3, [0, 1, 2] * PER_CLASS)
    for split in ("train", "test"):
        add(root / split)
    assert seen(data.load(root)) == before
    assert seen(data.load(root / "test"))[1:] == before[1:]


def test_loops_of_links_end(tmp_path: Path) -> None:
    root = make(tmp_path / "images")
    for split in ("train", "test"):
        (root / split / "cat" / "again").symlink_to(root / split / "cat")
        (root / split / "cat" / "self").symlink_to("self")
    assert seen(data.load(root))[:3] == (12, 3, [0, 1, 2] * PER_CLASS)
    names = [f"f{number}" for number in range(12)]
    for name in names:  # every one leads to all others: more paths than can be counted
        (root / "web" / name).mkdir(parents=True)
        write(root / "web" / name / "0.png")
    for one in names:
        for other in names:
            if one != other:
                (root / "web" / one / other).symlink_to(f"../{other}")
    assert data.load(root / "web").train_size == 12 * 12


def test_linked_files_classes_and_splits(tmp_path: Path) -> None:
    root = make(tmp_path / "images")
    linked = tmp_path / "linked"
    (linked / "train" / "cat").mkdir(parents=True)
    (linked / "test").symlink_to(root / "test")
    (linked / "train" / "ant").symlink_to(root / "train" / "ant")
    (linked / "train" / "dog").symlink_to("../../images/train/dog")
    for number in range(PER_CLASS):
        link = linked / "train" / "cat" / f"{number}.png"
        link.symlink_to(root / "train" / "cat" / f"{number}.png")
    assert seen(data.load(linked)) == seen(data.load(root))
    mean = data.load(linked).calibration(12).mean(0)
    torch.testing.assert_close(mean, data.load(root).calibration(12).mean(0))


def test_a_link_that_leads_nowhere_is_named(root: Path) -> None:
    (root / "test" / "cat" / "9.png").symlink_to("nowhere.png")
    with pytest.raises(SparsemendError, match=r"cat/9\.png' cannot be read"):
        data.load(root).test()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(root: Path) -> None:
    (root / "test" / "cat").chmod(0)
    with pytest.raises(SparsemendError, match=r"test/cat' cannot be read \(Permission denied\)"):
        data.load(root)


def test_a_class_that_one_split_lacks_keeps_its_number(root: Path) -> None:
    shutil.rmtree(root / "test" / "cat")
    assert data.load(root).test()[1].tolist() == [0, 2] * PER_CLASS


@given(st.sets(st.text("abcXYZ0_", min_size=1, max_size=4), min_size=1, max_size=5))
def test_classes_are_numbered_in_alphabetical_order(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    root = tmp_path_factory.mktemp("classes") / "test"
    order = sorted(names)
    for name in names:
        write(root / name / "0.png", order.index(name))
    inputs, labels = data.load(root).test()
    assert labels.tolist() == list(range(len(order)))
    for number, image in zip(labels.tolist(), inputs, strict=True):
        expected = torch.from_numpy(np.array(picture(number))).permute(2, 0, 1) / 255
        torch.testing.assert_close(image, expected)


def test_flat_folders_have_no_labels(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "flat" / f"{number}.png", number)
        write(tmp_path / "split" / "train" / f"{number}.png", number)
        write(tmp_path / "split" / "test" / "cat" / f"{number}.png", number)
    (tmp_path / "flat" / "notes").mkdir()
    flat, split = data.load(tmp_path / "flat"), data.load(tmp_path / "split")
    assert (flat.train_size, flat.has_labels) == (3, False)
    assert flat.calibration(3).shape == (3, 3, 6, 6)
    assert (split.train_size, split.test()[1].tolist()) == (3, [0, 0, 0])


# ------------------------------------------------------------------------------ kinds of images


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.full((6, 6), 0x8001, np.uint16)).save(path)


ODD: dict[str, Callable[[Path], object]] = {
    "gray": lambda path: write(path, 1, "L"),
    "gray with transparency": lambda path: write(path, 1, "LA"),
    "black and white": lambda path: write(path, 1, "1"),
    "palette": lambda path: write(path, 1, "P"),
    "transparency": lambda path: write(path, 1, "RGBA"),
    "colour": lambda path: write(path, 1, "RGB"),
    "inks": lambda path: write(path.with_suffix(".tif"), 1, "CMYK").rename(path),
    "16 bits": sixteen_bits,
}


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_one_of_another_kind_is_converted(
    tmp_path: Path, mode: str, channels: int, odd: str, place: int
) -> None:
    folder = tmp_path / "test" / "cat"
    for number in range(5):
        write(folder / f"{number}.png", number, mode)
    before = data.load(tmp_path).test()[0]
    ODD[odd](folder / f"{place}.png")
    images = data.load(tmp_path)
    inputs, _ = images.test()
    assert inputs.shape == (5, channels, 6, 6)
    others = [number for number in range(5) if number != place]
    assert torch.equal(inputs[others], before[others])
    alone = torch.cat([image for image, _ in data.load(tmp_path).test_batches(1)])
    assert torch.equal(alone, inputs)  # whatever is read first
    if odd == "16 bits":
        assert (inputs[place] * 255 == 0x80).all()


def test_gray_images_of_a_coloured_set_have_three_equal_channels(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.png", number, "L" if number == 1 else "RGB")
    images = data.load(tmp_path).calibration(3)
    gray = [bool((image[0] == image[1]).all() and (image[0] == image[2]).all()) for image in images]
    assert sorted(gray) == [False, False, True]


def test_a_tie_is_coloured(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 0, "L")
    write(tmp_path / "1.png", 1, "RGB")
    assert data.load(tmp_path).calibration(2).shape == (2, 3, 6, 6)


def test_most_decide_where_there_are_many(tmp_path: Path) -> None:
    for number in range(450):
        write(tmp_path / f"{number:03}.png", number % 7, "L" if number % 10 < 4 else "RGB")
    assert data.load(tmp_path).calibration(8).shape == (8, 3, 6, 6)


def test_mostly_sixteen_bits_are_refused(tmp_path: Path) -> None:
    for number in range(2):
        sixteen_bits(tmp_path / f"{number}.png")
    write(tmp_path / "2.png")
    with pytest.raises(SparsemendError, match="too many bits a channel"):
        data.load(tmp_path).calibration(3)


def test_unknown_ranges_are_refused(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.tif", number)
    Image.fromarray(np.zeros((6, 6), np.float32)).save(tmp_path / "1.tif")
    with pytest.raises(SparsemendError, match=r"1\.tif' has too many bits a channel"):
        data.load(tmp_path).calibration(3)


def test_a_damaged_image_does_not_decide(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "test" / "cat" / f"{number}.png", number, "L")
    (tmp_path / "test" / "cat" / "1.png").write_bytes(b"no image")
    images = data.load(tmp_path)
    assert images.test(1)[0].shape == (1, 1, 6, 6)
    with pytest.raises(SparsemendError, match=r"1\.png' cannot be decoded"):
        images.test()


def test_one_gray_image_in_a_parquet_file(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = []
    for number in range(5):
        path = write(tmp_path / "x.png", number, "L" if number == 0 else "RGB")
        cells.append({"bytes": path.read_bytes()})
    table = pa.table({"img": cells, "label": [0] * 5})
    pq.write_table(table, tmp_path / "test-0.parquet", row_group_size=3)
    inputs, _ = data.load(tmp_path).test()
    assert inputs.shape == (5, 3, 6, 6)
