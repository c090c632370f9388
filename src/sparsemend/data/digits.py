"""scikit-learn's handwritten digits: 1,797 gray images of 8x8 pixels, installed with it."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsemend.data._split import TEST, TRAIN, TensorSplit

_TEST_FRACTION = 0.25


def read_digits() -> dict[str, TensorSplit]:
    """Return the training and the test split."""
    return {
        split: TensorSplit(images, labels) for split, (images, labels) in digits_tensors().items()
    }


def digits_tensors() -> dict[str, tuple[Tensor, Tensor]]:
    """Return images and labels of the training (1,347) and test (450) split.

    The images are float32 [n, 1, 8, 8] in [0, 1], the labels int64 [n]. The splits are the same
    on every call, and every class has its share of both.
    """
    # Imported here because scikit-learn takes a second to import.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16,
        torch.from_numpy(labels).long(),
        test_size=_TEST_FRACTION,
        stratify=labels,
        random_state=0,
    )
    train_images, test_images, train_labels, test_labels = parts
    return {TRAIN: (train_images, train_labels), TEST: (test_images, test_labels)}
