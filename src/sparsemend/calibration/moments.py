"""Additive calibration moments of a layer, accumulated without cancellation.

Both kinds keep a count, a mean and centred sums, and merge by the pairwise update of Chan,
Golub and LeVeque (1979), so batches, processes and machines can be pooled in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsemend.calibration.statistics import OutputStatistics

# From this fan-in on the d × d sums are kept in float32, which halves the memory; each chunk
# is centred before it is squared, so the sums never cancel.
_FLOAT32_FROM = 1025


def accumulator_dtype(fan_in: int, device: torch.device) -> torch.dtype:
    """Type of the d × d sums: float64 where it is small and the device has it."""
    wide = fan_in >= _FLOAT32_FROM or device.type == "mps"
    return torch.float32 if wide else torch.float64


def _mean_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass
class InputMoments:
    """First and second moments of a layer's unfolded inputs.

    Attributes
    ----------
    count
        Number of positions seen.
    mean
        mu = E[x], [groups, d].
    scatter
        Σ (x − mu)(x − mu)ᵀ over positions, [groups, d, d].
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def empty(cls, groups: int, fan_in: int, device: torch.device) -> InputMoments:
        dtype = accumulator_dtype(fan_in, device)
        mean = torch.zeros(groups, fan_in, dtype=_mean_dtype(device), device=device)
        scatter = torch.zeros(groups, fan_in, fan_in, dtype=dtype, device=device)
        return cls(0, mean, scatter)

    def update(self, x: Tensor) -> None:
        """Add positions [groups, positions, d]; half precision is computed in float32."""
        x = x if x.dtype == torch.float64 else x.float()
        count = x.shape[1]
        if not count:
            return
        mean = x.mean(dim=1, dtype=self.mean.dtype)
        centred = x - mean.unsqueeze(1).to(x.dtype)
        if self.scatter.dtype == x.dtype:
            self.scatter.baddbmm_(centred.mT, centred)
        else:
            self.scatter += torch.bmm(centred.mT, centred)
        # Rounding the mean to the inputs' type leaves a rest that the sums must not contain.
        rest = mean - mean.to(x.dtype).to(mean.dtype)
        self._shift(rest, -float(count))
        self._pool(count, mean)

    def merge(self, other: InputMoments) -> None:
        """Add the positions that another accumulator has seen."""
        self.scatter += other.scatter.to(self.scatter)
        self._pool(other.count, other.mean.to(self.mean))

    def _pool(self, count: int, mean: Tensor) -> None:
        total = self.count + count
        if not total:
            return
        difference = mean - self.mean
        self._shift(difference, self.count * count / total)
        self.mean += difference * (count / total)
        self.count = total

    def _shift(self, vector: Tensor, factor: float) -> None:
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
        variance = self.scatter.diagonal(dim1=1, dim2=2) / self.count
        return variance.to(self.mean.dtype) + self.mean.square()


@dataclass
class ColumnMoments:
    """Mean and variance of a layer's unfolded input columns, where d × d would be too large."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def empty(cls, shape: tuple[int, ...], device: torch.device) -> ColumnMoments:
        zeros = torch.zeros(shape, dtype=_mean_dtype(device), device=device)
        return cls(0, zeros, zeros.clone())

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
