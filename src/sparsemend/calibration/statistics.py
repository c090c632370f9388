"""What a repair may know of a layer: dense and pruned pre-activations, channel by channel."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class OutputStatistics:
    """Second-order statistics of dense z and pruned z' pre-activations per output channel.

    All tensors broadcast to [..., C], where leading dimensions are variants (densities). The
    error z' − z is kept on its own: v − 2q + v' would cancel where little was pruned.

    Attributes
    ----------
    dense_mean
        E[z].
    dense_variance
        v = Var[z].
    pruned_variance
        v' = Var[z'].
    error_mean
        E[z' − z].
    error_variance
        Var[z' − z] = v − 2q + v'.
    """

    dense_mean: Tensor
    dense_variance: Tensor
    pruned_variance: Tensor
    error_mean: Tensor
    error_variance: Tensor

    def uncentred(self) -> OutputStatistics:
        """The same with second moments about zero in the place of variances, and means of zero.

        What operators make of them is right for a layer that cannot be shifted: E z² is matched
        where Var z would be, and regressions go through the origin.
        """
        zero = torch.zeros_like
        return OutputStatistics(
            dense_mean=zero(self.dense_mean),
            dense_variance=self.dense_variance + self.dense_mean.square(),
            pruned_variance=self.pruned_variance + self.pruned_mean.square(),
            error_mean=zero(self.error_mean),
            error_variance=self.raw_distortion,
        )

    def trusted(self, trust: Tensor) -> OutputStatistics:
        """The same as far as it can be trusted; the rest is filled with z' = z.

        Parameters
        ----------
        trust
            Share t of every channel that is observed, [C] in [0, 1]; the rest 1 − t is taken up by
            observations of no error. Means stay; channels with t = 1 stay bit for bit.
        """
        if bool((trust >= 1).all()):
            return self
        full = trust >= 1
        filled = trust * self.pruned_variance + (1 - trust) * self.dense_variance
        return dataclasses.replace(
            self,
            pruned_variance=torch.where(full, self.pruned_variance, filled),
            error_variance=torch.where(full, self.error_variance, trust * self.error_variance),
        )

    @property
    def pruned_mean(self) -> Tensor:
        """E[z']."""
        return self.dense_mean + self.error_mean

    @property
    def error_covariance(self) -> Tensor:
        """Cov[z', z' − z] = v' − q."""
        return (self.pruned_variance - self.dense_variance + self.error_variance) / 2

    @property
    def covariance(self) -> Tensor:
        """q = Cov[z, z']."""
        return (self.dense_variance + self.pruned_variance - self.error_variance) / 2

    @property
    def raw_distortion(self) -> Tensor:
        """D_raw = E(z' − z)²."""
        return self.error_variance + self.error_mean.square()

    def residual_distortion(self, scale: Tensor) -> Tensor:
        """E(g z' + h − z)² with the best shift h: v − 2 g q + g² v', written around g = 1."""
        away = scale - 1
        return (
            self.error_variance
            + 2 * away * self.error_covariance
            + away.square() * self.pruned_variance
        )
