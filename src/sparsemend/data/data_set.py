"""Inputs for calibration and for evaluation, never mixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from sparsemend.boundary import public
from sparsemend.checks import check_int
from sparsemend.data._split import TEST, TRAIN, VALIDATION, Batch, Split
from sparsemend.data.preprocessing import Preprocessing
from sparsemend.errors import SparsemendError


class DataSet:
    """A data set of labelled or unlabelled inputs: images, texts or other arrays.

    Calibration and held-out inputs come from the training split, without labels; evaluation
    inputs come from the test split (the validation split where there is no test split).

    Parameters
    ----------
    splits
        By name: ``train``, ``test``, ``validation``; any of them may be missing.
    source
        Path or name of the data set, for the errors' text.
    mean, std
        Per-channel normalisation of pixels in [0, 1]; both or neither. Images are otherwise
        given as pixels in [0, 1], or as they are where the data set stores floating point. What
        is no images, tensors [N, C, H, W], is given as it is.

    Raises
    ------
    SparsemendError
        If mean and std are not one positive or finite number per channel.
    """

    @public
    def __init__(
        self,
        splits: Mapping[str, Split],
        *,
        source: str,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self._splits = dict(splits)
        self._source = source
        checked = Preprocessing(mean=mean, std=std)  # type: ignore[arg-type]
        self.mean, self.std = checked.mean, checked.std

    def __repr__(self) -> str:
        return f"DataSet({self._source!r}, train={self.train_size}, test={self.test_size})"

    @property
    def train_size(self) -> int:
        """Number of training images, 0 without a training split."""
        return len(self._splits[TRAIN]) if TRAIN in self._splits else 0

    @property
    def test_size(self) -> int:
        """Number of test images, 0 without a test split."""
        return 0 if self._test is None else len(self._test)

    @property
    def has_labels(self) -> bool:
        """Whether there is a test split with labels, so that accuracy can be measured."""
        return self._test is not None and self._test.labels is not None

    @cached_property
    def num_classes(self) -> int:
        """One more than the largest label of any split."""
        labels = [split.labels for split in self._splits.values()]
        largest = [int(tensor.max()) for tensor in labels if tensor is not None and len(tensor)]
        if not largest:
            raise SparsemendError(
                f"data {self._source!r} has no labels", fix="the number of classes is not known"
            )
        return 1 + max(largest)

    @public
    def shares(self, calibration_size: int, heldout_size: int) -> tuple[int, int]:
        """Sizes of a calibration and a held-out sample that the training split has inputs for.

        Where it has too few for both, they share all that there are in the same proportion, at
        least one each; a single input is for calibration alone.

        Examples
        --------
        >>> from sparsemend.data import load
        >>> load("digits").shares(512, 256), load("digits").shares(5120, 2560)
        ((512, 256), (898, 449))
        """
        available, wanted = len(self._train()), calibration_size + heldout_size
        if wanted <= available:
            return calibration_size, heldout_size
        unseen = max(1, available * heldout_size // wanted) if heldout_size else 0
        unseen = min(available - 1, unseen)
        return min(available - unseen, calibration_size), unseen

    @public
    def calibration_batches(self, size: int, batch_size: int, *, seed: int = 0) -> list[Batch]:
        """The same sample as :meth:`calibration`, in batches."""
        rows = self._calibration_rows(size, seed)
        return self._batches(self._train(), rows, batch_size)

    @public
    def heldout_batches(
        self, size: int, batch_size: int, *, calibration_size: int, seed: int = 0
    ) -> list[Batch]:
        """The same sample as :meth:`heldout`, in batches."""
        rows = self._heldout_rows(size, calibration_size, seed)
        return self._batches(self._train(), rows, batch_size)

    @public
    def calibration(self, size: int, *, seed: int = 0) -> Batch:
        """Draw a random sample of the training split.

        Parameters
        ----------
        size
            Number of inputs.
        seed
            Of the draw; with one seed, a smaller sample is the beginning of a larger one.

        Returns
        -------
        Batch
            Of images float32 [size, C, H, W], normalised.

        Raises
        ------
        SparsemendError
            If there is no training split or it has fewer images.
        """
        return self._inputs(self._train(), self._calibration_rows(size, seed))

    @public
    def heldout(self, size: int, *, calibration_size: int, seed: int = 0) -> Batch:
        """Draw training inputs that ``calibration(calibration_size, seed=seed)`` does not hold.

        Parameters
        ----------
        size
            Number of images.
        calibration_size, seed
            Of the calibration sample to stay clear of.

        Returns
        -------
        Batch
            Of images float32 [size, C, H, W], normalised.

        Raises
        ------
        SparsemendError
            If the training split has too few inputs for both.
        """
        return self._inputs(self._train(), self._heldout_rows(size, calibration_size, seed))

    def _calibration_rows(self, size: int, seed: int) -> list[int]:
        train = self._train()
        self._check_size("calibration size", size, len(train))
        return _permutation(len(train), seed)[:size]

    def _heldout_rows(self, size: int, calibration_size: int, seed: int) -> list[int]:
        train = self._train()
        self._check_size("calibration size", calibration_size, len(train))
        self._check_size("held-out size", size, len(train))
        if size + calibration_size > len(train):
            raise SparsemendError(
                "held-out images would overlap the calibration images",
                size,
                f"at most {len(train) - calibration_size}, the training split of "
                f"{self._source!r} having {len(train)} images and calibration "
                f"taking {calibration_size}",
                "lower either size",
            )
        return _permutation(len(train), seed)[-size:]

    def _batches(self, split: Split, rows: Sequence[int], batch_size: int) -> list[Batch]:
        starts = range(0, len(rows), check_int("batch_size", batch_size))
        return [self._inputs(split, rows[start : start + batch_size]) for start in starts]

    @public
    def test(self, limit: int | None = None) -> tuple[Batch, Tensor]:
        """Return the first ``limit`` test images, all by default.

        Returns
        -------
        tuple of Tensor
            Inputs float32 [n, C, H, W], normalised, and labels int64 [n].

        Raises
        ------
        SparsemendError
            If there is no test split or it has no labels.
        """
        split, labels, count = self._labelled_test(limit)
        return self._inputs(split, range(count)), labels[:count]

    @public
    def test_batches(
        self, batch_size: int = 256, limit: int | None = None
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Yield the same images and labels as ``test`` in batches, decoding one at a time.

        Raises
        ------
        SparsemendError
            As ``test`` does, and at once, before the first batch is asked for.
        """
        batch_size = check_int("batch_size", batch_size)
        split, labels, count = self._labelled_test(limit)

        def batches() -> Iterator[tuple[Batch, Tensor]]:
            for start in range(0, count, batch_size):
                stop = min(start + batch_size, count)
                yield self._inputs(split, range(start, stop)), labels[start:stop]

        return batches()

    @property
    def _test(self) -> Split | None:
        return self._splits.get(TEST, self._splits.get(VALIDATION))

    def _train(self) -> Split:
        split = self._splits.get(TRAIN)
        if split is None or len(split) == 0:
            raise self._missing("training", "calibration", "train")
        return split

    def _labelled_test(self, limit: int | None) -> tuple[Split, Tensor, int]:
        if limit is not None:
            limit = check_int("limit", limit)
        split = self._test
        if split is None or len(split) == 0:
            raise self._missing("test", "evaluation", "test or validation")
        labels = split.labels
        if labels is None:
            raise SparsemendError(
                f"the test split of data {self._source!r} has no labels",
                fix="evaluation needs a label for every image",
            )
        return split, labels, len(split) if limit is None else min(limit, len(split))

    def _missing(self, what: str, purpose: str, names: str) -> SparsemendError:
        return SparsemendError(
            f"data {self._source!r} has no {what} split, which {purpose} needs",
            sorted(self._splits),
            fix=f"add a file or folder named {names}; "
            "calibration and evaluation never share images",
        )

    def _check_size(self, name: str, size: int, available: int) -> None:
        check_int(name, size)
        if size > available:
            raise SparsemendError(
                f"{name} is larger than the training split of {self._source!r}",
                size,
                f"1 to {available}",
                "lower it",
            )

    def _inputs(self, split: Split, rows: Sequence[int]) -> Batch:
        """Read rows; of images as normalised float32."""
        found = split.inputs(rows)
        return self._normalised(found) if split.is_images else found

    def _normalised(self, images: Tensor) -> Tensor:
        inputs = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        if self.mean is None or self.std is None:
            return inputs
        if inputs.shape[1] != len(self.mean):
            raise SparsemendError(
                f"images of {self._source!r} do not fit the mean and std",
                f"{inputs.shape[1]} channels",
                f"{len(self.mean)}, one for each value of the mean",
                "choose the data the network was trained for, or another mean and std",
            )
        if images.is_floating_point() and self._would_normalise_twice(inputs):
            raise SparsemendError(
                f"images of {self._source!r} are floating point outside [0, 1], "
                "and mean and std would be applied to them",
                (round(inputs.min().item(), 3), round(inputs.max().item(), 3)),
                "pixels in [0, 1], or uint8",
                "scale them; if they are normalised already, pass mean 0 and std 1",
            )
        shape = (1, -1, 1, 1)
        mean, std = torch.tensor(self.mean).view(shape), torch.tensor(self.std).view(shape)
        return (inputs - mean) / std

    def _would_normalise_twice(self, inputs: Tensor) -> bool:
        changes = any(self.mean or ()) or any(value != 1 for value in self.std or ())
        return changes and bool(inputs.min() < 0 or inputs.max() > 1)


def _permutation(size: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(check_int("seed", seed, minimum=0))
    rows: list[int] = torch.randperm(size, generator=generator).tolist()
    return rows
