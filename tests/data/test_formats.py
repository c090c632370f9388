"""The file formats: what they read, what they decode, and the errors they give."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sparsemend import data
from sparsemend.errors import SparsemendError

Image = pytest.importorskip("PIL.Image")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

Pixels = np.ndarray


def _pixels(count: int, *, seed: int = 0, size: int = 6, channels: int = 3) -> Pixels:
    shape = (count, size, size, channels) if channels > 1 else (count, size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _encode(pixels: Pixels, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def _expected(pixels: Pixels) -> torch.Tensor:
    pixels = pixels if pixels.ndim == 4 else pixels[..., None]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def _rows_of(inputs: torch.Tensor, pixels: Pixels) -> list[int]:
    """Return which of the images each input is."""
    return [(_expected(pixels) == one).flatten(1).all(dim=1).nonzero().item() for one in inputs]


def _write_parquet(
    path: Path,
    images: Sequence[bytes | None],
    *,
    column: str = "img",
    group: int = 4,
    **labels: Sequence[object],
) -> Path:
    cells = [{"bytes": content, "path": None} for content in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({column: pa.array(cells, kind), **labels})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


# ----------------------------------------------------------------------------- parquet


def test_parquet_shards_are_one_split(tmp_path: Path) -> None:
    train, test = _pixels(25), _pixels(7, seed=1)
    encoded = [_encode(image, "WEBP") for image in train]
    _write_parquet(tmp_path / "train-00000-of-00002.parquet", encoded[:11], label=range(11))
    _write_parquet(tmp_path / "train-00001-of-00002.parquet", encoded[11:], label=range(11, 25))
    _write_parquet(tmp_path / "test-0.parquet", [_encode(image) for image in test], label=[3] * 7)
    for name in ("extra-0.parquet", "trainer-0.parquet"):
        _write_parquet(tmp_path / name, encoded, label=range(25))
    images = data.load(tmp_path)
    assert (images.train_size, images.test_size, images.num_classes) == (25, 7, 25)
    assert sorted(_rows_of(images.calibration(25, seed=4), train)) == list(range(25))
    inputs, labels = images.test()
    torch.testing.assert_close(inputs, _expected(test))
    assert labels.tolist() == [3] * 7


def test_parquet_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    train = _pixels(23)
    _write_parquet(tmp_path / "train-0.parquet", [_encode(image) for image in train[:9]])
    _write_parquet(tmp_path / "train-1.parquet", [_encode(image) for image in train[9:]])
    images = data.load(tmp_path)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(7))[:15].tolist()
    assert _rows_of(images.calibration(15, seed=7), train) == order


def test_parquet_reads_only_the_row_groups_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = [_encode(image) for image in _pixels(40)]
    _write_parquet(tmp_path / "test-0.parquet", encoded, label=range(40))
    read: list[int] = []
    whole = pq.ParquetFile.read_row_group

    def counted(self: object, index: int, **options: object) -> object:
        read.append(index)
        return whole(self, index, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    images = data.load(tmp_path)
    assert images.has_labels
    assert read == []
    assert len(list(images.test_batches(2, limit=10))) == 5
    assert read == [0, 1, 2]


def test_parquet_prefers_fine_labels_and_named_image_columns(tmp_path: Path) -> None:
    encoded = [_encode(image) for image in _pixels(3)]
    labels = {"coarse_label": [0, 0, 0], "fine_label": [7, 8, 9]}
    _write_parquet(tmp_path / "data" / "test-0.parquet", encoded, column="image", **labels)
    images = data.load(tmp_path)
    assert images.test()[1].tolist() == [7, 8, 9]


def test_parquet_without_labels(tmp_path: Path) -> None:
    _write_parquet(tmp_path / "train-0.parquet", [_encode(image) for image in _pixels(3)])
    images = data.load(tmp_path)
    assert not images.has_labels
    assert images.calibration(3).shape == (3, 3, 6, 6)


def test_parquet_damaged_image_names_file_and_row(tmp_path: Path) -> None:
    encoded: list[bytes | None] = [_encode(image) for image in _pixels(10)]
    encoded[6] = encoded[6][:40]  # type: ignore[index]
    _write_parquet(tmp_path / "test-0.parquet", encoded, label=range(10))
    images = data.load(tmp_path)
    assert len(images.test(6)[0]) == 6
    with pytest.raises(SparsemendError, match=r"image in row 6 of .*test-0\.parquet'.*decoded"):
        images.test()


def test_parquet_without_bytes(tmp_path: Path) -> None:
    _write_parquet(tmp_path / "train-0.parquet", [_encode(_pixels(1)[0]), None])
    with pytest.raises(SparsemendError, match=r"image in row 1 of .* has no bytes"):
        data.load(tmp_path).calibration(2)


def test_parquet_images_that_differ_in_size(tmp_path: Path) -> None:
    encoded = [_encode(_pixels(1)[0]), _encode(_pixels(1, size=5)[0])]
    _write_parquet(tmp_path / "test-0.parquet", encoded, label=[0, 0])
    text = "in row 0 of .* is 6x6 with 3 channels, in row 1 of .* is 5x5"
    with pytest.raises(SparsemendError, match=text):
        list(data.load(tmp_path).test_batches(1))


def test_parquet_files_that_name_no_split(tmp_path: Path) -> None:
    _write_parquet(tmp_path / "0000.parquet", [_encode(_pixels(1)[0])])
    with pytest.raises(SparsemendError, match=r"name no split: got \['0000\.parquet'\].*rename"):
        data.load(tmp_path)


def test_parquet_half_written(tmp_path: Path) -> None:
    path = _write_parquet(tmp_path / "train-0.parquet", [_encode(_pixels(1)[0])])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SparsemendError, match=r"train-0\.parquet' cannot be read"):
        data.load(tmp_path)


def test_parquet_without_a_column_of_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"age": [1], "label": [0]}), tmp_path / "train-0.parquet")
    with pytest.raises(SparsemendError, match=r"no column of images: got \['age', 'label'\]"):
        data.load(tmp_path)


def test_parquet_labels_that_are_no_classes(tmp_path: Path) -> None:
    encoded = [_encode(image) for image in _pixels(2)]
    path = tmp_path / "test-0.parquet"
    _write_parquet(path, encoded, label=["cat", "dog"])
    with pytest.raises(SparsemendError, match=r"column 'label' of .* wrong type: got '.*string'"):
        data.load(tmp_path)
    _write_parquet(path, encoded, label=[0, None])
    with pytest.raises(SparsemendError, match="lacks labels: got '1 empty rows'"):
        data.load(tmp_path).test()
    _write_parquet(path, encoded, label=[0, -1])
    with pytest.raises(SparsemendError, match=r"labels of .* are below 0: got -1"):
        data.load(tmp_path).test()


def test_parquet_shards_that_differ(tmp_path: Path) -> None:
    encoded = [_encode(_pixels(1)[0])]
    _write_parquet(tmp_path / "train-0.parquet", encoded, label=[0])
    _write_parquet(tmp_path / "train-1.parquet", encoded, fine_label=[0])
    with pytest.raises(SparsemendError, match="differ in their columns"):
        data.load(tmp_path)


# ------------------------------------------------------------------------ image folder


def _write_image(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encode(pixels))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two training classes, and three test classes of which one is in other folders below."""
    pixels = iter(_pixels(30))
    root = tmp_path / "pictures"
    for number in range(4):
        _write_image(root / "train" / "cat" / f"{number}.png", next(pixels))
        _write_image(root / "train" / "emu" / f"{number}.PNG", next(pixels))
        _write_image(root / "val" / "ape" / f"{number}.png", next(pixels))
        _write_image(root / "val" / "emu" / "images" / f"{number}.png", next(pixels))
    _write_image(root / "val" / "cat" / "0.png", next(pixels))
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / "cat" / "._0.png").write_text("no image either")
    return root


def test_folder_by_class(folder: Path) -> None:
    images = data.load(folder)
    assert (images.train_size, images.test_size, images.num_classes) == (8, 9, 3)
    assert images.calibration(8).shape == (8, 3, 6, 6)
    assert images.test()[1].bincount().tolist() == [4, 1, 4]


def test_any_prefix_of_a_folder_has_its_share_of_every_class(folder: Path) -> None:
    assert data.load(folder).test()[1].tolist() == [0, 1, 2, 0, 2, 0, 2, 0, 2]


def test_folder_without_splits_is_one_split(folder: Path) -> None:
    images = data.load(folder / "val")
    assert (images.train_size, images.test_size) == (0, 9)
    with pytest.raises(SparsemendError, match="no training split"):
        images.calibration(2)
    renamed = (folder / "train").rename(folder / "zoo")
    images = data.load(renamed)
    assert (images.train_size, images.test_size) == (8, 0)
    with pytest.raises(SparsemendError, match=r"no test split.*add a file or folder named test"):
        images.test()


def test_folder_without_classes_has_no_labels(tmp_path: Path) -> None:
    for number, pixels in enumerate(_pixels(3)):
        _write_image(tmp_path / "unlabelled" / f"{number}.png", pixels)
    images = data.load(tmp_path / "unlabelled")
    assert images.calibration(3).shape == (3, 3, 6, 6)
    assert not images.has_labels


def test_folder_images_that_differ_in_size(folder: Path) -> None:
    _write_image(folder / "val" / "ape" / "1.png", _pixels(1, size=9)[0])
    text = r"ape/0\.png' is 6x6 with 3 channels, '.*ape/1\.png' is 9x9 with 3 channels; say"
    with pytest.raises(SparsemendError, match=text):
        data.load(folder).test()


def test_folder_damaged_image(folder: Path) -> None:
    (folder / "val" / "emu" / "images" / "2.png").write_bytes(b"nonsense")
    with pytest.raises(SparsemendError, match=r"emu/images/2\.png' cannot be decoded"):
        data.load(folder).test()


def test_folder_with_images_beside_its_classes(folder: Path) -> None:
    _write_image(folder / "train" / "stray.png", _pixels(1)[0])
    with pytest.raises(SparsemendError, match=r"beside its class folders: got 'stray\.png'"):
        data.load(folder)


def test_folder_of_classes_one_of_which_is_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        _write_image(tmp_path / name / "0.png", _pixels(1)[0])
    with pytest.raises(SparsemendError, match=r"beside its splits: got \['bus'\]"):
        data.load(tmp_path)


def test_folder_with_two_test_splits(folder: Path) -> None:
    _write_image(folder / "validation" / "cat" / "0.png", _pixels(1)[0])
    with pytest.raises(SparsemendError, match=r"validation split: got \['val', 'validation'\]"):
        data.load(folder)


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("LA", 1), ("1", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)]
)
def test_channels_of_image_modes(tmp_path: Path, mode: str, channels: int) -> None:
    Image.fromarray(_pixels(1)[0]).convert(mode).save(tmp_path / "0.png")
    assert data.load(tmp_path).calibration(1).shape == (1, channels, 6, 6)


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(_pixels(1, channels=1)[0].astype(np.uint16) * 256).save(tmp_path / "0.png")
    with pytest.raises(SparsemendError, match="too many bits a channel"):
        data.load(tmp_path).calibration(1)


# ------------------------------------------------------------------------------ arrays

Save = Callable[[Path, dict[str, Pixels]], Path]


def _save_npz(folder: Path, arrays: dict[str, Pixels]) -> Path:
    np.savez_compressed(folder / "arrays.npz", **arrays)
    return folder / "arrays.npz"


def _save_safetensors(folder: Path, arrays: dict[str, Pixels]) -> Path:
    tensors = {key: torch.from_numpy(array).contiguous() for key, array in arrays.items()}
    save_file(tensors, folder / "arrays.safetensors")
    return folder / "arrays.safetensors"


@pytest.mark.parametrize("save", [_save_npz, _save_safetensors])
@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("images_train", "labels_train", "images_val", "labels_val"),
        ("X_train", "Y_train", "X_test", "Y_test"),
    ],
)
def test_arrays(tmp_path: Path, save: Save, keys: tuple[str, ...]) -> None:
    train, test = _pixels(8), _pixels(5, seed=1)
    labels = np.arange(8), np.arange(5)[:, None]
    path = save(tmp_path, dict(zip(keys, (train, labels[0], test, labels[1]), strict=True)))
    images = data.load(path)
    assert (images.train_size, images.test_size, images.num_classes) == (8, 5, 8)
    assert sorted(_rows_of(images.calibration(8), train)) == list(range(8))
    torch.testing.assert_close(images.test()[0], _expected(test))
    assert images.test()[1].tolist() == list(range(5))


def test_array_layouts(tmp_path: Path) -> None:
    pixels = _pixels(4)
    for name, array in {
        "last": pixels,
        "first": pixels.transpose(0, 3, 1, 2),
        "float": (pixels / 255).astype(np.float64),
    }.items():
        (tmp_path / name).mkdir()
        path = _save_npz(tmp_path / name, {"x_train": array})
        inputs = data.load(path).calibration(4)
        assert inputs.dtype == torch.float32
        assert sorted(_rows_of((inputs * 255).round() / 255, pixels)) == [0, 1, 2, 3]
    path = _save_npz(tmp_path, {"x_train": _pixels(4, channels=1)})
    assert data.load(path).calibration(4).shape == (4, 1, 6, 6)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"y": np.zeros(3)}, r"names no array of inputs: got \['y'\]"),
        ({"x_test": np.zeros((2, 5)), "y_test": np.zeros(2, int)}, r"wrong shape: got \(2, 5\)"),
        ({"x_test": np.zeros((2, 3, 5, 3)), "y_test": np.zeros(2, int)}, "'x_test' .*wrong shape"),
        ({"x_test": np.zeros((2, 5, 5), int), "y_test": np.zeros(2, int)}, "'x_test' .*wrong type"),
        ({"x_test": np.zeros((2, 5, 5)), "y_test": np.zeros(3, int)}, "each of the 2 images"),
        ({"x_test": np.zeros((2, 5, 5)), "y_test": np.zeros(2)}, "'y_test' .*integer class"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Pixels], text: str) -> None:
    path = _save_npz(tmp_path, arrays)
    with pytest.raises(SparsemendError, match=text):
        data.load(path).test()


def test_damaged_arrays(tmp_path: Path) -> None:
    for save in (_save_npz, _save_safetensors):
        path = save(tmp_path, {"x_train": _pixels(40)})
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(SparsemendError, match=r"cannot be read as arrays .*half-written"):
            data.load(path)
    path = tmp_path / "objects.npz"
    np.savez(path, x_train=np.array([{}, []], dtype=object))
    with pytest.raises(SparsemendError, match="nothing pickled"):
        data.load(path).calibration(1)


def test_arrays_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    path = _save_npz(tmp_path, {"y_test": np.arange(3)})
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (6400000, 1000, 1000), }"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_test.npy", b"\x93NUMPY\x01\x00" + bytes([len(text), 0]) + text)
    with pytest.raises(SparsemendError, match=r"does not hold an array of shape \(6400000, 1000"):
        data.load(path).test()


def test_nobody_is_told_to_allow_pickles(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for write in (
        lambda: path.write_bytes(pickle.dumps({"x_train": 1})),
        lambda: np.savez(path, x_train=np.array([{}], dtype=object)),
    ):
        write()
        with pytest.raises(SparsemendError) as caught:
            data.load(path).calibration(1)
        assert "allow_pickle" not in str(caught.value)
        assert "trust" not in str(caught.value)


# ---------------------------------------------------------------------------- no data set


def test_paths_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(SparsemendError, match="nowhere' does not exist; allowed: a folder of parq"):
        data.load(tmp_path / "nowhere")
    with pytest.raises(SparsemendError, match="is an empty folder"):
        data.load(tmp_path)
    (tmp_path / "readme.txt").write_text("no images here")
    with pytest.raises(SparsemendError, match=r"is no data set; allowed: .*or 'digits'"):
        data.load(tmp_path)
    (tmp_path / "readme.md").write_text("no inputs here")
    with pytest.raises(SparsemendError, match=r"readme\.md' is no data set"):
        data.load(str(tmp_path / "readme.md"))


@pytest.mark.parametrize(("module", "package"), [("PIL.Image", "PIL"), ("pyarrow.parquet", "py")])
def test_packages_that_are_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    _write_parquet(tmp_path / "train-0.parquet", [_encode(_pixels(1)[0])])
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SparsemendError, match=f"'{package}.*pip install 'sparsemend.images.'"):
        data.load(tmp_path)


# ---------------------------------------------------------------------------- real images


def test_real_images(shared_data: Path) -> None:
    images = data.load(shared_data / "cifar100")
    assert (images.train_size, images.test_size, images.num_classes) == (8192, 10_000, 100)
    assert images.calibration(32).shape == (32, 3, 32, 32)


def test_accuracy_of_a_real_network(shared_data: Path) -> None:
    from sparsemend import models

    loaded = models.load("cifar_resnet20", shared_data / "weights" / "cifar10_resnet20.safetensors")
    images = data.load(shared_data / "cifar10", mean=loaded.mean, std=loaded.std)
    correct = 0
    with torch.inference_mode():
        for inputs, labels in images.test_batches(limit=2000):
            correct += int((loaded.model(inputs).argmax(dim=1) == labels).sum())
    assert correct / 2000 == pytest.approx(0.926, abs=0.015)
