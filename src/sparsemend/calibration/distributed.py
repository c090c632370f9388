"""Pool moments over processes: sums of tensors only, no objects are sent.

With counts n_r, means m_r and centred sums S_r of every process r, exactly

    n = Σ n_r,   m = Σ n_r m_r / n,   S = Σ [S_r + n_r (m_r − m)(m_r − m)ᵀ].
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sparsemend.calibration.moments import ColumnMoments, InputMoments
from sparsemend.errors import SparsemendError

Result = TypeVar("Result")


class Collectives:
    """Reductions over a process group, on whatever device its backend works.

    Parameters
    ----------
    group
        Process group; None for all processes.

    Raises
    ------
    SparsemendError
        If there is no process group.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise SparsemendError(
                "moments are to be pooled over processes, but there is no process group",
                fix="start with torchrun and call torch.distributed.init_process_group first",
            )
        self._group = group
        nccl = "nccl" in str(dist.get_backend(group))
        self._device = torch.device("cuda", torch.cuda.current_device()) if nccl else None

    def sum_(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        self._reduce(tensor, dist.ReduceOp.SUM)

    def sum_count(self, count: int) -> int:
        """Sum of a number over all processes."""
        total = torch.tensor([count], dtype=torch.int64)
        self.sum_(total)
        return int(total)

    def spread(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Least and largest value over processes of each number."""
        low = torch.tensor(numbers, dtype=torch.int64)
        high = low.clone()
        self._reduce(low, dist.ReduceOp.MIN)
        self._reduce(high, dist.ReduceOp.MAX)
        return low, high

    def _reduce(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
        device = self._device or torch.device("cpu")
        moved = tensor.to(device).contiguous()
        dist.all_reduce(moved, operation, group=self._group)
        if moved is not tensor:
            tensor.copy_(moved)


def require_same(collectives: Collectives, layers: Sequence[tuple[str, str]]) -> None:
    """Raise on every process alike unless all have the same layers.

    Parameters
    ----------
    collectives
        Over the processes.
    layers
        Name and description of every layer.
    """
    fix = "run the same network, with the same options, on every process"
    low, high = collectives.spread([len(layers)])
    if low != high:
        raise SparsemendError(
            "processes have calibrated different networks",
            f"between {int(low)} and {int(high)} layers",
            fix=fix,
        )
    low, high = collectives.spread([_digest(description) for _, description in layers])
    for (name, _), differs in zip(layers, (low != high).tolist(), strict=True):
        if differs:
            raise SparsemendError(
                f"processes have calibrated different networks: layer {name!r} differs",
                allowed="equal layers, density grids and max_fan_in",
                fix=fix,
            )


def succeed_together(collectives: Collectives, work: Callable[[], Result]) -> Result:
    """Do work on every process; if one fails all raise, so that none waits for it forever."""
    error: Exception | None = None
    try:
        result = work()
    except Exception as problem:
        error = problem
    _, failed = collectives.spread([error is not None])
    if error is not None:
        raise error
    if failed:
        raise SparsemendError(
            "calibration failed on another process", fix="see the error of that process"
        )
    return result


def pool_moments(
    collectives: Collectives, matrices: Sequence[InputMoments], columns: Sequence[ColumnMoments]
) -> None:
    """Pool all moments over processes, in place.

    Parameters
    ----------
    collectives
        Over the processes.
    matrices
        Moments with d × d sums, reduced one at a time.
    columns
        Moments of single columns, reduced together.
    """
    everything: list[InputMoments | ColumnMoments] = [*matrices, *columns]
    for moments in matrices:
        moments.form_sums()  # which settles the mean
    counts = torch.tensor([moments.count for moments in everything], dtype=torch.int64)
    collectives.sum_(counts)
    totals = counts.tolist()

    means = [moments.mean * moments.count for moments in everything]
    _sum_together(collectives, means)
    squares: list[Tensor] = []
    for entry, total, mean in zip(everything, totals, means, strict=True):
        mean /= max(1, total)
        away = entry.mean - mean
        if isinstance(entry, InputMoments):
            entry.shift_scatter(away, float(entry.count))
            collectives.sum_(entry.scatter)
        else:
            entry.scatter += away.square() * entry.count
            squares.append(entry.scatter)
        entry.mean, entry.count = mean, total
    _sum_together(collectives, squares)


def _sum_together(collectives: Collectives, tensors: Sequence[Tensor]) -> None:
    """Sum small tensors over processes in one call."""
    if not tensors:
        return
    joined = torch.cat([tensor.flatten().cpu() for tensor in tensors])
    collectives.sum_(joined)
    parts = joined.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _digest(text: str) -> int:
    """A number of 63 bits that differs between texts."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
