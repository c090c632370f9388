"""Calibration, held-out and test images: sizes, seeds, normalisation, labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsemend import data
from sparsemend.data import DataSet
from sparsemend.data._split import TensorSplit
from sparsemend.errors import SparsemendError


def _split(size: int, *, start: int = 0, labelled: bool = True) -> TensorSplit:
    """Images whose pixels are all their own number, so that they can be told apart."""
    numbers = torch.arange(start, start + size)
    images = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return TensorSplit(images, numbers % 5 if labelled else None)


def _numbers(inputs: Tensor) -> list[int]:
    return (inputs[:, 0, 0, 0] * 255).round().int().tolist()


@pytest.fixture
def images() -> DataSet:
    return DataSet({"train": _split(100), "test": _split(40, start=100)}, source="numbers")


def test_calibration_draws_from_the_training_split_without_repeats(images: DataSet) -> None:
    inputs = images.calibration(60, seed=1)
    assert inputs.shape == (60, 3, 2, 2)
    assert inputs.dtype == torch.float32
    assert len(set(_numbers(inputs))) == 60
    assert max(_numbers(inputs)) < 100


def test_calibration_depends_on_the_seed_alone(images: DataSet) -> None:
    first = _numbers(images.calibration(50, seed=1))
    torch.manual_seed(5)
    assert _numbers(images.calibration(50, seed=1)) == first
    assert _numbers(images.calibration(20, seed=1)) == first[:20]
    assert _numbers(images.calibration(50, seed=2)) != first


@pytest.mark.parametrize(("size", "heldout"), [(1, 99), (50, 50), (99, 1), (10, 20)])
def test_heldout_and_calibration_are_disjoint(images: DataSet, size: int, heldout: int) -> None:
    calibration = _numbers(images.calibration(size, seed=3))
    rest = _numbers(images.heldout(heldout, calibration_size=size, seed=3))
    assert len(rest) == heldout
    assert not set(calibration) & set(rest)
    assert max(rest) < 100


def test_heldout_that_would_overlap(images: DataSet) -> None:
    with pytest.raises(SparsemendError, match=r"would overlap .*got 60; allowed: at most 50"):
        images.heldout(60, calibration_size=50)


def test_sizes_out_of_range(images: DataSet) -> None:
    with pytest.raises(SparsemendError, match=r"calibration size is larger .*got 101.*1 to 100"):
        images.calibration(101)
    with pytest.raises(SparsemendError, match=r"held-out size is larger .*1 to 100"):
        images.heldout(101, calibration_size=1)
    for call in (
        lambda size: images.calibration(size),
        lambda size: images.heldout(size, calibration_size=1),
        lambda size: images.heldout(1, calibration_size=size),
        lambda size: images.test(size),
        lambda size: images.test_batches(size),
    ):
        for size, allowed in ((0, "an integer of at"), (-3, "an integer of at"), (1.5, "a whole")):
            with pytest.raises(SparsemendError, match=f"got {size}; .*{allowed}"):
                call(size)
    with pytest.raises(SparsemendError, match="seed is out of range: got -1"):
        images.calibration(1, seed=-1)


def test_test_images_are_in_order(images: DataSet) -> None:
    inputs, labels = images.test(7)
    assert _numbers(inputs) == list(range(100, 107))
    assert labels.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert labels.dtype == torch.int64
    assert len(images.test()[0]) == len(images.test(1000)[0]) == 40


@pytest.mark.parametrize("limit", [None, 1, 16, 17, 40, 99])
def test_batches_hold_the_same_as_test(images: DataSet, limit: int | None) -> None:
    batches = list(images.test_batches(16, limit=limit))
    assert all(len(inputs) == len(labels) <= 16 for inputs, labels in batches)
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected_inputs, expected_labels = images.test(limit)
    assert torch.equal(inputs, expected_inputs)
    assert torch.equal(labels, expected_labels)


def test_properties(images: DataSet) -> None:
    assert (images.train_size, images.test_size, images.num_classes) == (100, 40, 5)
    assert images.has_labels
    assert repr(images) == "DataSet('numbers', train=100, test=40)"


def test_validation_stands_in_for_a_missing_test_split_only() -> None:
    splits = {"train": _split(5), "validation": _split(3, start=50)}
    images = DataSet(splits, source="numbers")
    assert _numbers(images.test()[0]) == [50, 51, 52]
    images = DataSet({**splits, "test": _split(2, start=70)}, source="numbers")
    assert _numbers(images.test()[0]) == [70, 71]


def test_missing_splits() -> None:
    images = DataSet({"train": _split(5)}, source="numbers")
    assert images.test_size == 0
    assert not images.has_labels
    with pytest.raises(SparsemendError, match=r"no test split, which evaluation needs: .*'train'"):
        images.test()
    with pytest.raises(SparsemendError, match="never share images"):
        images.test_batches()
    images = DataSet({"test": _split(5)}, source="numbers")
    with pytest.raises(SparsemendError, match="no training split, which calibration needs"):
        images.calibration(2)
    empty = DataSet({"train": _split(0), "test": _split(0)}, source="numbers")
    with pytest.raises(SparsemendError, match="no training split"):
        empty.calibration(1)
    with pytest.raises(SparsemendError, match="no test split"):
        empty.test()


def test_unlabelled_data() -> None:
    splits = {"train": _split(5, labelled=False), "test": _split(5, labelled=False)}
    images = DataSet(splits, source="numbers")
    assert not images.has_labels
    assert len(images.calibration(5)) == 5
    with pytest.raises(SparsemendError, match="test split of data 'numbers' has no labels"):
        images.test()
    with pytest.raises(SparsemendError, match="data 'numbers' has no labels"):
        _ = images.num_classes


def test_normalisation() -> None:
    mean, std = [0.5, 0.25, 0.0], [0.1, 0.2, 1.0]
    plain = DataSet({"train": _split(100)}, source="numbers").calibration(9)
    normalised = DataSet({"train": _split(100)}, source="numbers", mean=mean, std=std)
    for channel in range(3):
        expected = (plain[:, channel] - mean[channel]) / std[channel]
        torch.testing.assert_close(normalised.calibration(9)[:, channel], expected)


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        ([0.5], None, "do not go together"),
        (None, [0.5], "do not go together"),
        ([0.5, 0.5], [0.5], "do not go together"),
        ([], [], "do not go together"),
        ([float("nan")], [1.0], "mean does not fit"),
        ([0.5], [0.0], "std does not fit"),
    ],
)
def test_bad_mean_and_std(mean: list[float] | None, std: list[float] | None, text: str) -> None:
    with pytest.raises(SparsemendError, match=text):
        data.load("digits", mean=mean, std=std)


def test_channels_that_do_not_fit() -> None:
    images = data.load("digits", mean=[0.1, 0.2, 0.3], std=[1, 1, 1])
    with pytest.raises(
        SparsemendError, match=r"'digits' do not fit .*got '1 channels'; allowed: 3"
    ):
        images.calibration(4)


def test_floats_are_not_normalised_twice() -> None:
    splits = {"train": TensorSplit(torch.randn(9, 3, 4, 4), None)}
    images = DataSet(splits, source="floats", mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(SparsemendError, match=r"floating point outside \[0, 1\].*pass mean 0"):
        images.calibration(9)
    images = DataSet(splits, source="floats", mean=[0] * 3, std=[1] * 3)
    assert images.calibration(9).min() < 0


def test_digits() -> None:
    images = data.load("digits")
    assert (images.train_size, images.test_size, images.num_classes) == (1347, 450, 10)
    inputs = images.calibration(1000)
    assert inputs.shape == (1000, 1, 8, 8)
    assert inputs.min() == 0
    assert inputs.max() == 1
    counts = images.test()[1].bincount()
    assert counts.max() - counts.min() <= 3
    assert torch.equal(data.load("digits").test()[0], images.test()[0])
