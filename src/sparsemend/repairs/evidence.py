"""How far calibration inputs support what a repair fits to them.

Where a channel is left with inputs that hardly ever fire, or hardly vary, in the calibration data,
matching it asks for a gain (or kept weights) that those few numbers cannot carry: other inputs of
the same kind would be blown up. Two things say so:

- n_eff = (Σ_i e_i)² / Σ_i e_i², the effective number of inputs that its variance rests on, where
  input i adds the energy e_i: 1 if a single input makes all of it;
- its scale s beside what is ordinary in its layer: the variance that its weights make of their
  inputs, over that which weights of the same size make of all of the layer's inputs.

The trust t = min(1, n_eff s / kappa) is exactly 1 on ordinary channels, which are repaired as they
would be without this. Below 1, the rest 1 − t is filled with observations in which the channel is
right as it is (z' = z): gains stay below (1 − t)^-1/2, and go to 1 where nothing speaks for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# kappa: on ordinary networks n_eff s is above 1 nearly everywhere, at any sparsity; where inputs
# fire rarely or hardly vary it is far below.
_ENOUGH = 0.1


@dataclass
class Spread:
    """How evenly energy is spread over inputs: additive sums.

    Attributes
    ----------
    energy, square
        Σ_i e_i and Σ_i e_i², of any shape.
    """

    energy: Tensor
    square: Tensor

    @classmethod
    def empty(cls, like: Tensor) -> Spread:
        return cls(torch.zeros_like(like), torch.zeros_like(like))

    def add(self, energies: Tensor) -> None:
        """Add energies [N, ...], one for each input."""
        self.energy += energies.sum(dim=0)
        self.square += energies.square().sum(dim=0)

    @property
    def effective(self) -> Tensor:
        """n_eff; 0 where there is no energy."""
        return _ratio(self.energy.square(), self.square)


@dataclass
class ColumnVariances:
    """Second moments of a layer's unfolded inputs, column by column: additive sums.

    Attributes
    ----------
    inputs
        Number of inputs.
    mean, square
        Σ over inputs of the means over their positions of x and of x², [groups, d].
    """

    inputs: int
    mean: Tensor
    square: Tensor

    @classmethod
    def empty(cls, like: Tensor) -> ColumnVariances:
        return cls(0, torch.zeros_like(like), torch.zeros_like(like))

    def add(self, means: Tensor, squares: Tensor) -> None:
        """Add mean patches of x and x², [groups, N, d]."""
        self.inputs += means.shape[1]
        self.mean += means.sum(dim=1)
        self.square += squares.sum(dim=1)

    def values(self, *, about_zero: bool) -> Tensor:
        """E x² about zero, or Var x, [groups, d]."""
        square = self.square / self.inputs
        if about_zero:
            return square
        return (square - (self.mean / self.inputs).square()).clamp(min=0)


def channel_trust(
    effective: Tensor, variance: Tensor, pruned: Tensor, dense: Tensor, columns: Tensor
) -> Tensor:
    """Trust in the pruned variance of every channel, [C] in [0, 1].

    Parameters
    ----------
    effective
        n_eff of every channel, [C].
    variance
        v', [C].
    pruned, dense
        Weight matrices [groups, rows, d].
    columns
        Variance of every input column, [groups, d].
    """
    kept = pruned.to(columns.dtype).square().sum(dim=2).flatten()
    weights = dense.to(columns.dtype).square()
    ordinary = _ratio(
        (weights * columns.unsqueeze(1)).sum(dim=2).flatten(), weights.sum(dim=2).flatten()
    )
    trust = _trust(effective, _ratio(variance, kept * ordinary))
    # Where nothing is left there is no gain to hold back.
    return trust.where(variance > 0, torch.ones_like(trust))


def column_trust(effective: Tensor, variance: Tensor) -> Tensor:
    """Trust in the variance of every input column, [groups, d] in [0, 1].

    Parameters
    ----------
    effective
        n_eff of every column, [groups, d].
    variance
        Of every column, [groups, d].
    """
    scale = _ratio(variance.clamp(min=0), variance.mean(dim=1, keepdim=True))
    return _trust(effective, scale)


def _trust(effective: Tensor, scale: Tensor) -> Tensor:
    return (effective * scale / _ENOUGH).clamp(max=1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Of numbers that are not negative; 0 / 0 is 0."""
    return torch.where(whole > 0, part / whole, torch.zeros_like(part))
