"""The result of a calibration: the moments of every layer, which merge and all-reduce."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from sparsemend.boundary import public
from sparsemend.calibration.distributed import Collectives, pool_moments, require_same
from sparsemend.calibration.moments import ColumnMoments, InputMoments, PairedMoments
from sparsemend.errors import SparsemendError
from sparsemend.layers import LayerSet


@dataclass
class WideLayerMoments:
    """What is kept of a layer whose fan-in exceeds the limit: paired outputs on a grid.

    Attributes
    ----------
    columns
        Mean and variance of the input columns, [groups, d].
    outputs
        Paired moments of dense and magnitude-pruned outputs, one variant per density.
    densities
        The grid.
    """

    columns: ColumnMoments
    outputs: PairedMoments
    densities: tuple[float, ...]

    def to(self, device: torch.device, /) -> WideLayerMoments:
        """The same on a device."""
        return WideLayerMoments(self.columns.to(device), self.outputs.to(device), self.densities)

    def check_grid(self, other: WideLayerMoments) -> None:
        if self.densities != other.densities:
            raise SparsemendError("calibrations of different density grids cannot be merged")

    def merge(self, other: WideLayerMoments) -> None:
        self.check_grid(other)
        self.columns.merge(other.columns)
        self.outputs.merge(other.outputs)

    @property
    def count(self) -> int:
        """Number of positions seen."""
        return self.columns.count

    @property
    def column_square(self) -> Tensor:
        """E[x_j²] of every input column, [groups, d]."""
        return self.columns.column_square


LayerMoments = InputMoments | WideLayerMoments


@dataclass
class Calibration:
    """Moments of the dense network's layers; all that a diagnosis needs.

    Attributes
    ----------
    layers
        The prunable layers in execution order.
    moments
        Layer name → its moments.
    inputs
        Number of calibration inputs seen.
    """

    layers: LayerSet
    moments: dict[str, LayerMoments]
    inputs: int

    @public
    def merge(self, other: Calibration) -> None:
        """Add what another calibration of the same network has seen, in place.

        Raises
        ------
        SparsemendError
            If the layers differ, or the limit or grid of wide layers; nothing is added then.
        """
        mine, theirs = (
            [(layer.name, layer.kind, layer.shape, layer.groups) for layer in calibration.layers]
            for calibration in (self, other)
        )
        if mine != theirs:
            raise SparsemendError("calibrations of different networks cannot be merged")
        for name, moments in self.moments.items():
            added = other.moments[name]
            if type(moments) is not type(added):
                raise SparsemendError(f"layer {name!r} was calibrated with another max_fan_in")
            if isinstance(moments, WideLayerMoments):
                moments.check_grid(added)  # type: ignore[arg-type]
        for name, moments in self.moments.items():
            moments.merge(other.moments[name])  # type: ignore[arg-type]
        self.inputs += other.inputs

    def all_reduce(self, group: torch.distributed.ProcessGroup | None = None) -> None:
        """Pool with the calibrations of all other processes, in place; all of them must call it.

        Afterwards every process holds the moments of all calibration data, as if one process had
        seen them, to rounding. A process, and a layer in it, may have seen nothing.

        Works in place, layer by layer. Besides what the backend needs, memory grows only where
        the inputs of a layer were held, whose d × d sums are formed, and, with NCCL, for one
        layer's moments at a time that are on another device.

        Parameters
        ----------
        group
            Process group; default all processes. Backends gloo and NCCL.

        Raises
        ------
        SparsemendError
            If there is no process group, or, on every process alike, if the processes have
            calibrated different networks or with different options. Nothing is changed then.
        """
        collectives = Collectives(group)
        require_same(
            collectives, [(layer.name, self._signature(layer.name)) for layer in self.layers]
        )
        matrices: list[InputMoments] = []
        columns: list[ColumnMoments] = []
        for moments in self.moments.values():
            if isinstance(moments, InputMoments):
                matrices.append(moments)
            else:
                paired = moments.outputs
                columns += [moments.columns, paired.dense, paired.pruned, paired.error]
        pool_moments(collectives, matrices, columns)
        self.inputs = collectives.sum_count(self.inputs)

    def _signature(self, name: str) -> str:
        """What must agree between processes before a layer's moments can be pooled."""
        layer, moments = self.layers[name], self.moments[name]
        grid = moments.densities if isinstance(moments, WideLayerMoments) else "d × d"
        return repr((layer.name, layer.kind, layer.shape, layer.groups, grid))

    def __str__(self) -> str:
        head = f"Calibration of {len(self.layers)} layers on {self.inputs} inputs"
        return f"{head}\n{self.layers}\n{self.layers.coverage}"
