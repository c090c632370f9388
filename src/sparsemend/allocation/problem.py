"""What an allocation rule is given: layers, weights, budget and, for some, a diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsemend.calibration import LayerMoments
from sparsemend.errors import SparsemendError
from sparsemend.layers.layer import Layer
from sparsemend.layers.matrices import weight_matrix
from sparsemend.patterns import FREE

Array = npt.NDArray[np.float64]


class DamageCurves(Protocol):
    """The part of a diagnosis that rules read."""

    @property
    def layers(self) -> Sequence[str]:
        """Layer names, one per row of the curves."""

    @property
    def densities(self) -> Array:
        """Ascending densities in (0, 1], shape [K]."""

    @property
    def raw(self) -> Array:
        """Normalised damage before repair, shape [L, K]."""

    @property
    def residual(self) -> Array:
        """Normalised damage after repair, shape [L, K]."""

    @property
    def rr(self) -> Array:
        """Relative Repairability, residual / raw, shape [L, K]; NaN where nothing was pruned."""

    @property
    def sensitivities(self) -> Array | None:
        """Loss of the output per damage of a layer, shape [L]; None where it was not measured."""


@dataclass(frozen=True)
class Problem:
    """One allocation problem.

    Attributes
    ----------
    layers
        Prunable layers in execution order.
    weights
        Weight tensor of each layer, by layer name; only rules that look at weights need it.
    keep
        Exact number of weights to keep over all layers.
    sparsity
        The sparsity asked for, a fraction in [0, 1); where a cost was, that of ``keep``.
    diagnosis
        Damage curves of the same layers, for the rules that need them.
    prices
        About what a weight of each layer costs where the budget is no number of weights; empty
        where all cost the same.
    moments
        Of each layer's inputs in the dense network, by layer name, for the rules that need them.
    """

    layers: tuple[Layer, ...]
    weights: Mapping[str, Tensor]
    keep: int
    sparsity: float
    diagnosis: DamageCurves | None = None
    prices: Sequence[Fraction | float] = ()
    moments: Mapping[str, LayerMoments] | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of weights of each layer."""
        return tuple(layer.size for layer in self.layers)

    @property
    def total(self) -> int:
        """Number of prunable weights N."""
        return sum(self.sizes)

    def price(self, i: int) -> Fraction:
        """What a weight of the i-th layer costs, 1 where all cost the same."""
        return Fraction(self.prices[i]) if self.prices else Fraction(1)

    def magnitudes(self, i: int) -> Tensor:
        """|w| of the i-th layer as a new flat tensor, float32 (float64 if any layer is).

        Half precision widens exactly; one type for all layers makes them comparable. Where the
        layer's pattern keeps weights together only, their root mean square for each.

        Raises
        ------
        SparsemendError
            If the weight is missing, has another shape, or is not finite.
        """
        weight = self._weight(i)
        wide = any(w.dtype == torch.float64 for w in self.weights.values())
        dtype = torch.float64 if wide else torch.float32
        layer = self.layers[i]
        if layer.pattern != FREE:
            weight = layer.structure.shared(weight_matrix(weight.detach(), layer))
        magnitudes = weight.detach().reshape(-1).abs().to(dtype)
        # The maximum is NaN or infinite exactly when some weight is: no mask of n booleans.
        largest = float(magnitudes.max())
        if not np.isfinite(largest):
            raise SparsemendError(
                f"layer {self.layers[i].name!r} has a weight that is no number",
                largest,
                "finite weights",
            )
        return magnitudes

    def input_scores(self, i: int, rule: str) -> Tensor:
        """|w_ij| · sqrt(E x_j²) of the i-th layer (arXiv 2306.11695), [groups, rows, d].

        In float32, or float64 where the weight is.

        Parameters
        ----------
        i
            Which layer.
        rule
            Name of the rule that asks, for the error text.

        Raises
        ------
        SparsemendError
            If there are no moments, or weight or moments are missing or of another shape.
        """
        if self.moments is None:
            raise SparsemendError(
                f"rule {rule!r} needs the inputs' second moments",
                fix="pass calibration=sparsemend.calibrate(model, batches)",
            )
        layer = self.layers[i]
        weight = weight_matrix(self._weight(i).detach(), layer)
        found = self.moments.get(layer.name)
        square = None if found is None else found.column_square
        if square is None or square.shape != (weight.shape[0], weight.shape[2]):
            raise SparsemendError(
                f"the calibration does not have the inputs of layer {layer.name!r}",
                None if square is None else tuple(square.shape),
                "one of the network that is to be pruned",
            )
        wide = torch.promote_types(weight.dtype, torch.float32)
        return weight.abs().to(wide) * square.sqrt().to(wide).unsqueeze(1)

    def require_diagnosis(self, rule: str) -> DamageCurves:
        """The diagnosis, checked to be there and to be of these layers.

        Parameters
        ----------
        rule
            Name of the rule that needs it, for the error text.

        Raises
        ------
        SparsemendError
            If there is no diagnosis, or its layers are not those of the problem.
        """
        if self.diagnosis is None:
            raise SparsemendError(
                f"rule {rule!r} needs a diagnosis",
                None,
                "a diagnosis of the same network",
                "pass diagnosis=..., made by diagnose",
            )
        names = {layer.name for layer in self.layers}
        diagnosed = list(self.diagnosis.layers)
        if set(diagnosed) != names or len(diagnosed) != len(names):
            missing, unknown = sorted(names - set(diagnosed)), sorted(set(diagnosed) - names)
            raise SparsemendError(
                "the diagnosis is of other layers than the network",
                f"missing {missing}, unknown {unknown}, {len(diagnosed)} in all",
                f"the {len(names)} prunable layers, each once",
                "diagnose the network that is to be pruned",
            )
        return self.diagnosis

    def curves(self, quantity: Literal["raw", "residual", "rr"], rule: str) -> tuple[Array, Array]:
        """One quantity of the diagnosis, its rows in this problem's layer order.

        Parameters
        ----------
        quantity
            Which of the curves.
        rule
            Name of the rule that asks, for the error text.

        Returns
        -------
        densities
            Ascending densities in (0, 1], shape [K].
        values
            The quantity, shape [L, K].

        Raises
        ------
        SparsemendError
            As :meth:`require_diagnosis`, or if the arrays do not fit together.
        """
        diagnosis = self.require_diagnosis(rule)
        densities = np.asarray(diagnosis.densities, dtype=np.float64)
        values = np.asarray(getattr(diagnosis, quantity), dtype=np.float64)
        shape = (len(self.layers), densities.size)
        if densities.ndim != 1 or not densities.size or values.shape != shape:
            raise SparsemendError(
                f"shape of {quantity!r} in the diagnosis does not fit",
                values.shape,
                f"[layers, densities] = {shape} with at least one density",
            )
        if not (np.all(np.diff(densities) > 0) and densities[0] > 0 and densities[-1] <= 1):
            raise SparsemendError(
                "densities of the diagnosis are no grid",
                densities.tolist(),
                "ascending fractions in (0, 1]",
            )
        return densities, values[self._rows(diagnosis)]

    def sensitivities(self, rule: str) -> Array:
        """What the output suffers per damage of each layer, in this problem's layer order, [L].

        Parameters
        ----------
        rule
            Name of the rule that asks, for the error text.

        Raises
        ------
        SparsemendError
            As :meth:`require_diagnosis`, or if they were not measured or do not fit.
        """
        diagnosis = self.require_diagnosis(rule)
        if diagnosis.sensitivities is None:
            raise SparsemendError(
                f"rule {rule!r} needs a diagnosis with sensitivities",
                "one without",
                "one that was made with inputs to measure them on",
                "pass diagnosis=sm.diagnose(model, calibration, batches=inputs)",
            )
        values = np.asarray(diagnosis.sensitivities, dtype=np.float64)
        if values.shape != (len(self.layers),) or not np.isfinite(values).all():
            raise SparsemendError(
                "sensitivities of the diagnosis do not fit",
                values.tolist(),
                f"{len(self.layers)} finite numbers, one per layer",
            )
        return values[self._rows(diagnosis)]

    def _rows(self, diagnosis: DamageCurves) -> list[int]:
        """Of the diagnosis, in the order of the layers."""
        row = {name: index for index, name in enumerate(diagnosis.layers)}
        return [row[layer.name] for layer in self.layers]

    def _weight(self, i: int) -> Tensor:
        layer = self.layers[i]
        weight = self.weights.get(layer.name)
        if weight is None:
            raise SparsemendError(
                f"no weight tensor for layer {layer.name!r}",
                sorted(self.weights),
                "one tensor per prunable layer",
            )
        if tuple(weight.shape) != layer.shape:
            raise SparsemendError(
                f"weight of layer {layer.name!r} has another shape",
                tuple(weight.shape),
                str(layer.shape),
            )
        return weight
