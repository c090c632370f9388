"""Additive calibration moments of a layer, accumulated without cancellation.

Both kinds keep a count, a mean and centred sums, and merge by the pairwise update of Chan,
Golub and LeVeque (1979), so batches, processes and machines can be pooled in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from sparsemend.calibration.statistics import OutputStatistics
from sparsemend.layers import Axis, unfold

# From this fan-in on the d × d sums are kept in float32, which halves the memory; each chunk
# is centred before it is squared, so the sums never cancel.
_FLOAT32_FROM = 1025
# Rows that estimate a mean, and rows whose sum is taken in the inputs' own type.
_SAMPLE = 256
_BLOCK = 4096


def accumulator_dtype(fan_in: int, device: torch.device) -> torch.dtype:
    """Type of the d × d sums: float64 where it is small and the device has it."""
    wide = fan_in >= _FLOAT32_FROM or device.type == "mps"
    return torch.float32 if wide else torch.float64


def mean_dtype(device: torch.device) -> torch.dtype:
    """Type of means and of sums of squares."""
    return torch.float32 if device.type == "mps" else torch.float64


class Held(Protocol):
    """Inputs of a layer that are kept instead of their sums; see ``held.py``."""

    @property
    def count(self) -> int:
        """Number of positions."""

    def joined(self, other: Any) -> Self | None:
        """These inputs and others; None where together they are too many to be held."""

    def summed(self) -> InputMoments:
        """Moments with their d × d sums."""

    def mean_power(self, power: int) -> Tensor:
        """E[x_j ** power] of every unfolded column, [groups, d]."""

    def as_convolutions(self, group: int) -> Iterator[tuple[tuple[Axis, ...], Tensor]]:
        """One group's inputs [N, C, *spatial], all of one size together, and their dimensions."""

    def to(self, device: torch.device) -> Self:
        """These inputs on a device."""


class InputMoments:
    """First and second moments of a layer's unfolded inputs.

    Where there are fewer positions than columns, the inputs themselves can be held instead of
    the sums. Reading never changes that: what needs the sums takes :meth:`summed` once.

    Attributes
    ----------
    count
        Number of positions seen.
    mean
        mu = E[x], [groups, d].
    held
        The inputs, as long as they are held.
    """

    def __init__(
        self, count: int, mean: Tensor, scatter: Tensor | None, held: Held | None = None
    ) -> None:
        self.count = count
        self.mean = mean
        self._scatter = scatter
        self.held = held

    @classmethod
    def empty(cls, groups: int, fan_in: int, device: torch.device) -> InputMoments:
        return cls(0, torch.zeros(groups, fan_in, dtype=mean_dtype(device), device=device), None)

    @classmethod
    def holding(cls, held: Held) -> InputMoments:
        """Moments of these inputs, which are kept."""
        return cls(held.count, held.mean_power(1), None, held)

    def to(self, device: torch.device, /) -> InputMoments:
        """The same on a device."""
        scatter = None if self._scatter is None else self._scatter.to(device)
        held = None if self.held is None else self.held.to(device)
        return InputMoments(self.count, self.mean.to(device), scatter, held)

    def summed(self) -> InputMoments:
        """The same with d × d sums: itself, or new moments where inputs are held."""
        return self if self.held is None else self.held.summed()

    def form_sums(self) -> None:
        """Hold the sums instead of the inputs from now on, in place."""
        if self.held is not None:
            summed = self.held.summed()
            self.count, self.mean, self._scatter = summed.count, summed.mean, summed.scatter
            self.held = None

    @property
    def scatter(self) -> Tensor:
        """Σ (x − mu)(x − mu)ᵀ over positions, [groups, d, d]; formed anew where inputs are held."""
        if self.held is not None:
            return self.held.summed().scatter
        if self._scatter is None:
            groups, fan_in = self.mean.shape
            dtype, device = accumulator_dtype(fan_in, self.mean.device), self.mean.device
            self._scatter = torch.zeros(groups, fan_in, fan_in, dtype=dtype, device=device)
        return self._scatter

    def update(self, x: Tensor, *, overwrite: bool = False) -> None:
        """Add positions [groups, positions, d]; half precision is computed in float32.

        With ``overwrite``, ``x`` may be used as working memory.
        """
        wide = x if x.dtype == torch.float64 else x.float()
        count = wide.shape[1]
        if not count:
            return
        self.form_sums()
        # Any constant near the mean will do to keep the sums from cancelling: that of a sample
        # of rows (in the wide type, so that a constant column leaves exactly zero). The mean of
        # what is left is then small, and exact enough in the inputs' type.
        sample = wide[:, :: max(1, count // _SAMPLE)]
        constant = sample.mean(dim=1, keepdim=True, dtype=self.mean.dtype).to(wide.dtype)
        centred = wide.sub_(constant) if overwrite or wide is not x else wide - constant
        rest = torch.cat(
            [part.sum(dim=1, keepdim=True) for part in centred.split(_BLOCK, dim=1)], 1
        )
        left = rest.sum(dim=1, dtype=self.mean.dtype) / count
        if self.scatter.dtype == centred.dtype:
            self.scatter.baddbmm_(centred.mT, centred)
        else:
            self.scatter.add_(torch.bmm(centred.mT, centred))
        self.shift_scatter(left, -float(count))
        self._pool(count, constant.squeeze(1).to(self.mean.dtype) + left)

    def update_inputs(self, module: nn.Module, x: Tensor) -> None:
        """Add a module's inputs, unfolded in chunks."""
        for part in unfold(module, x):
            # What unfolding copied is ours to overwrite, unless its windows still overlap.
            copied = part.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
            self.update(part, overwrite=copied and part.is_contiguous())

    def add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Add the moments of ``count`` positions; ``scatter`` may be kept, not copied."""
        self.form_sums()
        if not self.count:
            dtype = accumulator_dtype(self.mean.shape[1], self.mean.device)
            self.count, self.mean, self._scatter = count, mean.to(self.mean), scatter.to(dtype)
            return
        self.scatter.add_(scatter.to(self.scatter))
        self._pool(count, mean.to(self.mean))

    def merge(self, other: InputMoments) -> None:
        """Add the positions that another accumulator has seen."""
        if self.held is not None and other.held is not None:
            both = self.held.joined(other.held)
            if both is not None:
                self.count, self.mean, self.held = both.count, both.mean_power(1), both
                return
        self.form_sums()
        added = other.summed()
        self.scatter.add_(added.scatter.to(self.scatter))
        self._pool(added.count, added.mean.to(self.mean))

    def _pool(self, count: int, mean: Tensor) -> None:
        total = self.count + count
        if not total:
            return
        difference = mean - self.mean
        self.shift_scatter(difference, self.count * count / total)
        self.mean += difference * (count / total)
        self.count = total

    def shift_scatter(self, vector: Tensor, factor: float) -> None:
        if factor:
            vector = vector.to(self.scatter.dtype)
            self.scatter.baddbmm_(vector.unsqueeze(2), vector.unsqueeze(1), alpha=factor)

    @property
    def covariance(self) -> Tensor:
        """Sigma = E[(x − mu)(x − mu)ᵀ], [groups, d, d]."""
        return self.scatter / self.count

    @property
    def column_square(self) -> Tensor:
        """E[x_j²] of every input column, [groups, d]."""
        if self.held is not None:
            return self.held.mean_power(2)
        diagonal = self.scatter.diagonal(dim1=1, dim2=2).to(self.mean.dtype)
        # Of columns that are nearly zero, a scatter in float32 may be a little below it.
        return (diagonal / self.count + self.mean.square()).clamp_min(0)


@dataclass
class ColumnMoments:
    """Mean and variance of a layer's unfolded input columns, where d × d would be too large."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def empty(cls, shape: tuple[int, ...], device: torch.device) -> ColumnMoments:
        zeros = torch.zeros(shape, dtype=mean_dtype(device), device=device)
        return cls(0, zeros, zeros.clone())

    def to(self, device: torch.device, /) -> ColumnMoments:
        """The same on a device."""
        return ColumnMoments(self.count, self.mean.to(device), self.scatter.to(device))

    def update(self, x: Tensor, dim: int) -> None:
        """Add values; ``dim`` is the dimension of positions, which is reduced."""
        count = x.shape[dim]
        if not count:
            return
        x = x.to(self.mean.dtype)
        scatter, mean = torch.var_mean(x, dim=dim, correction=0)
        self.merge(ColumnMoments(count, mean, scatter * count))

    def merge(self, other: ColumnMoments) -> None:
        total = self.count + other.count
        if not total:
            return
        difference = other.mean.to(self.mean) - self.mean
        weight = self.count * other.count / total
        self.scatter += other.scatter.to(self.scatter) + difference.square() * weight
        self.mean += difference * (other.count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        return self.scatter / self.count

    @property
    def column_square(self) -> Tensor:
        """E[x_j²] of every column."""
        return self.variance + self.mean.square()


@dataclass
class PairedMoments:
    """Paired moments of dense and pruned pre-activations, per output channel.

    The pruned side may have several variants (densities), K of them.
    """

    dense: ColumnMoments
    pruned: ColumnMoments
    error: ColumnMoments

    @classmethod
    def empty(cls, variants: int, channels: int, device: torch.device) -> PairedMoments:
        several = (variants, channels)
        return cls(
            ColumnMoments.empty((channels,), device),
            ColumnMoments.empty(several, device),
            ColumnMoments.empty(several, device),
        )

    def to(self, device: torch.device, /) -> PairedMoments:
        """The same on a device."""
        parts = (self.dense, self.pruned, self.error)
        return PairedMoments(*(part.to(device) for part in parts))

    def update(self, dense: Tensor, pruned: Tensor) -> None:
        """Add paired outputs: dense [positions, C], pruned [K, positions, C]."""
        dense = dense.to(self.dense.mean.dtype)
        pruned = pruned.to(self.dense.mean.dtype)
        self.dense.update(dense, dim=0)
        self.pruned.update(pruned, dim=1)
        self.error.update(pruned - dense, dim=1)

    def merge(self, other: PairedMoments) -> None:
        self.dense.merge(other.dense)
        self.pruned.merge(other.pruned)
        self.error.merge(other.error)

    def statistics(self) -> OutputStatistics:
        """The statistics that operators read, [K, C]."""
        return OutputStatistics(
            dense_mean=self.dense.mean,
            dense_variance=self.dense.variance,
            pruned_variance=self.pruned.variance,
            error_mean=self.error.mean,
            error_variance=self.error.variance,
        )
