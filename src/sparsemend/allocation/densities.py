"""What share of its weights each layer keeps, as a user says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sparsemend.allocation.allocation import Allocation
from sparsemend.allocation.budget import kept_total, round_half_up
from sparsemend.errors import SparsemendError
from sparsemend.files import read_file, read_json
from sparsemend.layers import LayerSet, select_layers

# The rule of an allocation that was made of densities.
GIVEN = "given"


def load_rule(path: Path) -> Allocation | Densities:
    """What a file says every layer keeps: an allocation, or densities.

    Parameters
    ----------
    path
        JSON: what ``sparsemend allocate --json`` printed, or an object of layers or patterns and
        their densities.

    Raises
    ------
    SparsemendError
        If there is no such file, or it holds neither.
    """

    def read(file: Path) -> Allocation | Densities:
        found = read_json(file)
        if not isinstance(found, Mapping):
            raise SparsemendError(
                "this is no allocation", found, "counts and sizes of layers, or their densities"
            )
        is_allocation = bool({"kept", "sizes"} & found.keys())
        return Allocation.from_dict(found) if is_allocation else Densities.read(found)

    return read_file(path, "allocation", read)


@dataclass(frozen=True)
class Densities:
    """Densities of layers that a user names; all other layers stay dense.

    Attributes
    ----------
    given
        Layer, class of layers or pattern → share of its weights to keep, in [0, 1]. A name counts
        before a pattern, and of several patterns the last one.
    """

    given: Mapping[str, float]

    @classmethod
    def read(cls, given: Mapping[Any, Any]) -> Densities:
        """What a user wrote.

        Raises
        ------
        SparsemendError
            If it is empty, a key is no text, or a value is no fraction.
        """
        if not given:
            raise SparsemendError("the densities name no layer", dict(given))
        for name, density in given.items():
            if not isinstance(name, str):
                raise SparsemendError(
                    "the densities have a key that is no name", name, "layers or patterns of them"
                )
            is_number = isinstance(density, Real) and not isinstance(density, bool)
            if not is_number or not 0 <= density <= 1:  # NaN fails the comparison too
                raise SparsemendError(
                    f"density of {name!r} is out of range",
                    density,
                    "a share of its weights in [0, 1]",
                    "5 % is 0.05",
                )
        return cls(MappingProxyType({name: float(density) for name, density in given.items()}))

    def allocate(self, layers: LayerSet, sparsity: float | None = None) -> Allocation:
        """The allocation for these layers.

        Each layer keeps round(density · n) weights, halves up, none where its density is 0; where
        its pattern does not allow that count, the nearest.

        Parameters
        ----------
        layers
            Of the network.
        sparsity
            Of all of them together, if it was said.

        Raises
        ------
        SparsemendError
            If a name or pattern means no layer, nothing is left of any layer, or the densities
            come to another sparsity.
        """
        found = dict.fromkeys(layers.names, 1.0)
        names = [key for key in self.given if key in found]
        for pattern in [key for key in self.given if key not in found] + names:
            found.update(dict.fromkeys(select_layers(layers, pattern), self.given[pattern]))
        sizes = {layer.name: layer.size for layer in layers}
        # Read as the decimals that they print as.
        counts = {n: round_half_up(Fraction(str(found[n])) * size) for n, size in sizes.items()}
        for layer in layers:
            if counts[layer.name]:
                counts[layer.name] = layer.structure.nearest(counts[layer.name])
        allocation = Allocation(counts, sizes, GIVEN)
        if not allocation.kept:
            raise SparsemendError("the densities leave no weight", dict(self.given))
        # Each is rounded by itself, to whole units of its pattern.
        self._check(allocation, sparsity, sum(layer.structure.least for layer in layers))
        return allocation

    def _check(self, allocation: Allocation, sparsity: float | None, nearness: int) -> None:
        if sparsity is None:
            return
        wanted = kept_total(sparsity, allocation.total)
        if abs(allocation.kept - wanted) > nearness:
            raise SparsemendError(
                "the densities come to another sparsity",
                f"{allocation.sparsity:.6g}",
                f"{sparsity:g}, as it was given",
                "leave the sparsity out, or change the densities",
            )
