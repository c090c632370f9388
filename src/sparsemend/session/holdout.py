"""Setting inputs aside that no repair may see, so that closeness on them can be believed."""

from __future__ import annotations

from sparsemend.execution.batches import Batch, batch_size, split_inputs


def hold_out(batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
    """The first batches to repair with, and the last fifth, at least one, to judge on.

    A single batch is cut in the same way; a single input serves as both.
    """
    if len(batches) == 1 and batch_size(batches[0]) < 2:
        return batches, batches
    return split_inputs(batches, lambda n: n - max(1, n // 5))
