"""Batches that a function of the user's gives, named as ``package.module:batches``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sparsemend.data._split import TRAIN, Batch
from sparsemend.data.data_set import DataSet
from sparsemend.errors import RAISED, SparsemendError, raised_by
from sparsemend.imports import find_object, importable


class GivenBatches(DataSet):
    """Unlabelled batches of any form, kept whole: their order alone is drawn.

    Sizes count batches' inputs; a sample is the fewest batches that hold so many.

    Parameters
    ----------
    spec
        Where the function or the iterable is.

    Raises
    ------
    SparsemendError
        If it cannot be imported, fails, or gives no batches.
    """

    def __init__(self, spec: str) -> None:
        self._batches_given = _make(spec)
        super().__init__({TRAIN: _Whole(self._batches_given)}, source=spec)

    def calibration_batches(self, size: int, batch_size: int, *, seed: int = 0) -> list[Batch]:  # noqa: ARG002
        return self._first(size, self._drawn(seed))

    def heldout_batches(
        self,
        size: int,
        batch_size: int,  # noqa: ARG002
        *,
        calibration_size: int,
        seed: int = 0,
    ) -> list[Batch]:
        order = self._drawn(seed)
        seen = len(self._first(calibration_size, order))
        return self._first(size, order[seen:][::-1]) or [order[-1]]

    def shares(self, calibration_size: int, heldout_size: int) -> tuple[int, int]:
        seen, unseen = super().shares(calibration_size, heldout_size)
        if unseen and len(self._batches_given) > 1:
            # At least one whole batch is held out.
            largest = max(self._sizes)
            seen = min(seen, max(1, self.train_size - max(unseen, largest)))
        elif unseen:
            seen, unseen = self.train_size, 0
        return seen, unseen

    @cached_property
    def _sizes(self) -> list[int]:
        return [_size(batch) for batch in self._batches_given]

    def _drawn(self, seed: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self._batches_given), generator=generator).tolist()
        return [self._batches_given[index] for index in order]

    def _first(self, size: int, batches: Sequence[Batch]) -> list[Batch]:
        chosen: list[Batch] = []
        count = 0
        for batch in batches:
            if count >= size:
                break
            chosen.append(batch)
            count += _size(batch)
        return chosen


class _Whole:
    """Batches as a split, for its size."""

    is_images, labels = False, None

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return sum(map(_size, self._batches))

    def inputs(self, rows: Sequence[int]) -> Batch:
        raise NotImplementedError("batches are kept whole")


def _make(spec: str) -> list[Batch]:
    found, folder = find_object(spec, what="data", name="batches")
    with importable(folder):
        try:
            batches: Any = found() if callable(found) else found
            held = list(batches) if isinstance(batches, Iterable) else []
        except RAISED as error:  # the user's own may fail in any way
            raise SparsemendError(f"data {spec!r} failed: {raised_by(error)}") from error
    if isinstance(batches, Tensor):
        held = list(batches.split(128))
    if not held:
        raise SparsemendError(
            f"data {spec!r} gave no batches",
            type(batches).__name__,
            "a function that returns unlabelled batches: tensors, tuples or dictionaries",
        )
    return held


def _size(batch: Batch) -> int:
    for leaf in tree_leaves(dict(batch) if hasattr(batch, "keys") else batch):
        if isinstance(leaf, Tensor):
            return int(leaf.shape[0]) if leaf.dim() else 1
    return 1
