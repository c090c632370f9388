"""The masks of one layer at every density of a grid, and its outputs under each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from torch import Tensor

from sparsemend.calibration import InputMoments, LayerMoments, OutputStatistics, kept_count
from sparsemend.damage import output_statistics
from sparsemend.damage.nested import nested_statistics
from sparsemend.errors import SparsemendError
from sparsemend.layers import Layer
from sparsemend.masks import MaskProblem, MaskRule, dense_fit
from sparsemend.masks.magnitude import MAGNITUDE

# Multiply-adds of one dense product per density beyond which nested masks share their work.
_NESTED_FROM = 1 << 26


class GridMasks:
    """The masks of a layer at every density of a grid, chosen when they are first asked for.

    Held are one byte a weight, or, of a rule whose masks are not nested, one for each density.

    Parameters
    ----------
    layer, dense
        The layer and its weights [groups, rows, d].
    moments
        Of its dense inputs.
    grid
        K ascending densities.
    rule
        What chooses the masks.
    """

    def __init__(
        self,
        layer: Layer,
        dense: Tensor,
        moments: LayerMoments,
        grid: Sequence[float],
        rule: MaskRule,
    ) -> None:
        self._layer, self._dense, self._moments = layer, dense, moments
        self._grid, self._rule = grid, rule

    def statistics(self) -> OutputStatistics:
        """Paired output statistics [K, C] of the layer under every mask."""
        dense, moments = self._dense, self._moments
        if not isinstance(moments, InputMoments):
            if self._rule is not MAGNITUDE or tuple(self._grid) != moments.densities:
                refuse_wide(self._layer, moments)
            return moments.outputs.statistics()
        work = dense.numel() * self._layer.fan_in * len(self._grid)
        if self._rule.has_entries and work > _NESTED_FROM and dense.device.type == "cpu":
            return nested_statistics(dense, self._entries, len(self._grid), moments)
        return output_statistics(dense, (dense * keep for keep in self), moments)

    def __iter__(self) -> Iterator[Tensor]:
        """The mask [groups, rows, d] of every density."""
        if self._rule.has_entries:
            return (self._entries <= number for number in range(len(self._grid)))
        return iter(self._chosen)

    @cached_property
    def _entries(self) -> Tensor:
        """Number of the first of the nested masks that holds each weight."""
        return self._rule.entries(self._problem(), self._kept)

    @cached_property
    def _chosen(self) -> list[Tensor]:
        return self._rule.masks(self._problem(), self._kept)

    @property
    def _kept(self) -> list[int]:
        return [kept_count(density, self._layer) for density in self._grid]

    def _problem(self) -> MaskProblem:
        """What a mask rule may look at of a layer's dense inputs and outputs."""
        dense, moments = self._dense, self._moments
        assert isinstance(moments, InputMoments), "wide layers have no masks"
        fit = dense_fit(dense, moments.covariance) if self._rule.joint else None
        return MaskProblem(dense, moments, fit, self._layer.structure)


def refuse_wide(layer: Layer, moments: LayerMoments) -> None:
    """Refuse other choices of weights than those whose outputs were measured."""
    if not isinstance(moments, InputMoments):
        raise SparsemendError(
            f"layer {layer.name!r} is too wide (fan-in {layer.fan_in}) for another mask, pattern "
            "or grid than it was calibrated with",
            allowed="mask 'magnitude' on the calibration's densities",
            fix="raise max_fan_in, or pass the same densities to calibrate",
        )
