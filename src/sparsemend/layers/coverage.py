"""How much of a network is covered by its layers, and what was left out and why (method, 8)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsemend.layers.layer import Layer
from sparsemend.layers.overloads import is_foreign
from sparsemend.layers.sites import Site, Uses, multiplies

_TIED = "tied to an embedding, which would be pruned with it"
_LOOKED_UP = "an embedding is looked up, not multiplied with"
_COMPUTED = "the network multiplies with what is computed from it, where zeros would not be zeros"
_TWO_WAYS = "read in several ways that overlap"
_UNREACHED = "not reached by the calibration inputs, or used where it cannot be seen"
_STALE = "not used when the network runs again: it keeps what it has computed from it"


@dataclass(frozen=True)
class LeftOut:
    """A parameter that no layer covers, or not in full.

    Attributes
    ----------
    parameter
        Its name.
    count
        Values that are not covered.
    reason
        Why.
    multiplied
        Whether the network multiplies with it as with a matrix, so that it counts among the
        matrix weights.
    """

    parameter: str
    count: int
    reason: str
    multiplied: bool


@dataclass(frozen=True)
class Coverage:
    """Counts of a network's parameters; tied ones count once.

    Attributes
    ----------
    parameters
        All of them.
    covered
        Weights of the layers.
    left_out
        Parameters of two and more dimensions that are not covered in full.
    """

    parameters: int
    covered: int
    left_out: tuple[LeftOut, ...] = ()

    @property
    def matrix(self) -> int:
        """Weights that the network multiplies with as with matrices, covered or not."""
        return self.covered + sum(part.count for part in self.left_out if part.multiplied)

    def without(self, layers: Sequence[Layer], reason: str) -> Coverage:
        """The coverage if these layers are left out as well."""
        left = [LeftOut(_parameter(x), x.size, reason, multiplied=True) for x in layers]
        covered = self.covered - sum(part.count for part in left)
        return Coverage(self.parameters, covered, (*self.left_out, *left))

    @property
    def share(self) -> float:
        """Fraction of the matrix weights that is covered."""
        return self.covered / max(1, self.matrix)

    def sparsity(self, kept: int) -> Mapping[str, float]:
        """Sparsity over the covered weights, over all matrix weights and over all parameters.

        Parameters
        ----------
        kept
            Weights of the layers that are kept.
        """
        pruned = self.covered - kept
        totals = {"covered": self.covered, "matrix": self.matrix, "parameters": self.parameters}
        return {name: pruned / max(1, total) for name, total in totals.items()}

    def reasons(self) -> Mapping[str, tuple[LeftOut, ...]]:
        """Reason → what was left out for it, the most weights first."""
        found: dict[str, list[LeftOut]] = {}
        for part in sorted(self.left_out, key=lambda part: -part.count):
            found.setdefault(part.reason, []).append(part)
        return {reason: tuple(parts) for reason, parts in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "parameters": self.parameters,
            "matrix": self.matrix,
            "covered": self.covered,
            "left_out": [vars(part) for part in self.left_out],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Coverage:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        KeyError, TypeError
            If these are the values of something else.
        """
        left = tuple(LeftOut(**part) for part in values["left_out"])
        return cls(values["parameters"], values["covered"], left)

    def __str__(self) -> str:
        lines = [
            f"{self.covered:,} of {self.matrix:,} matrix weights covered "
            f"({100 * self.share:.1f} %), {self.parameters:,} parameters in all"
        ]
        for reason, parts in self.reasons().items():
            names = ", ".join(part.parameter for part in parts[:3])
            more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
            count = sum(part.count for part in parts)
            lines.append(f"left out: {names}{more} ({count:,}): {reason}")
        return "\n".join(lines)


def prunable_sites(uses: Uses, *, tied: bool = False) -> list[Site]:
    """Weights that can be pruned for themselves, read in one way only.

    Not those of embeddings, unless ``tied``.
    """
    sites = list(uses.sites.values())
    embedded = set() if tied else uses.looked_up
    unfit = embedded | uses.computed | uses.read_differently | uses.stale | _overlapping(sites)
    return [site for site in sites if site.weight.parameter not in unfit]


def measure_coverage(
    model: nn.Module, layers: Sequence[Layer], uses: Uses | None = None
) -> Coverage:
    """What the layers cover of a model, and why the rest is left out."""
    covered: dict[str, int] = {}
    for layer in layers:
        name = _parameter(layer)
        covered[name] = covered.get(name, 0) + layer.size
    left = []
    total = 0
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        rest = parameter.numel() - covered.get(name, 0)
        if parameter.dim() > 1 and rest > 0:
            reason, multiplied = ("it is not known how it is used", True)
            if uses is not None:
                reason, multiplied = _reason(model, name, uses)
            left.append(LeftOut(name, rest, reason, multiplied))
    return Coverage(total, sum(covered.values()), tuple(left))


def _reason(model: nn.Module, name: str, uses: Uses) -> tuple[str, bool]:
    """Why a parameter is no layer, and whether the network multiplies with it all the same."""
    sites = [site for site in uses.sites.values() if site.weight.parameter == name]
    if name in uses.stale:
        return _STALE, True
    if name in uses.looked_up and sites:
        return _TIED, True
    if name in uses.looked_up - uses.computed:
        return _LOOKED_UP, False
    if name in uses.read_differently | _overlapping(sites):
        return _TWO_WAYS, True
    if name in uses.computed:
        return _COMPUTED + _made_plain(model, name), True
    if name in uses.otherwise and not sites:
        operation = uses.otherwise[name]
        if multiplies(operation) and name not in uses.inputs:
            if is_foreign(operation):
                return f"used by {operation}, of which it is not known what it does", True
            return f"multiplied by {operation}, which no kind of layer reads", True
        return f"used by {operation}, which is no product of matrices", False
    return _UNREACHED, True


def _made_plain(model: nn.Module, name: str) -> str:
    """What makes a plain weight of one that PyTorch's utilities compute."""
    path, _, last = name.rpartition(".")
    if "parametrizations" in name.split("."):
        return "; torch.nn.utils.parametrize.remove_parametrizations makes it plain"
    if hasattr(model.get_submodule(path), f"{last.removesuffix('_orig')}_mask"):
        return "; torch.nn.utils.prune.remove makes it plain"
    return ""


def _overlapping(sites: Sequence[Site]) -> set[str]:
    """Parameters of which views share elements, be it one view with itself."""
    found = set()
    by_parameter: dict[str, list[Site]] = {}
    for site in sites:
        by_parameter.setdefault(site.weight.parameter, []).append(site)
    for name, together in by_parameter.items():
        weights = [site.weight for site in together]
        spans = sorted((w.offset, w.offset + w.extent) for w in weights)
        apart = all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
        if apart and all(w.extent == math.prod(w.shape) for w in weights):
            continue
        span = max(end for _, end in spans)
        taken = torch.zeros(span, dtype=torch.bool)
        free = [weight.mark(taken) for weight in weights]
        if not all(free):
            found.add(name)
    return found


def _parameter(layer: Layer) -> str:
    if layer.weight is not None:
        return layer.weight.parameter
    return f"{layer.name}.weight" if layer.name else "weight"
