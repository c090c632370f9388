"""What whole channels save: multiplications of the layers that make them and that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sparsemend.layers import Channels, LayerSet, find_channels


@dataclass(frozen=True)
class _Flow:
    """Channels that can be removed.

    Attributes
    ----------
    channels
        How many there are.
    makers
        Position of every layer that makes them, and how many weights of it a channel takes.
    carried
        Whether one more may stay for the constants of those that are gone, since they are read in
        front of zero padding.
    """

    channels: int
    makers: tuple[tuple[int, int], ...]
    carried: bool

    def left(self, counts: Sequence[int]) -> Fraction:
        """Share of the channels that is left at these kept counts."""
        made = max(counts[place] // unit for place, unit in self.makers)
        return Fraction(min(max(made, 1) + self.carried, self.channels), self.channels)


@dataclass(frozen=True)
class _Term:
    """A layer: its multiplications, its position and size if it is pruned, its channels."""

    multiplications: int
    place: int | None
    size: int
    made: _Flow | None
    read: _Flow | None

    def left(self, counts: Sequence[int]) -> Fraction:
        """How many of its multiplications are left."""
        kept = Fraction(self.multiplications)
        if self.made is not None:
            kept *= self.made.left(counts)
        elif self.place is not None:
            kept *= Fraction(counts[self.place], self.size)
        return kept if self.read is None else kept * self.read.left(counts)


class ChannelSpending:
    """Kept counts of whole channels → share of the multiplications of the smaller dense network.

    A layer multiplies what it reads with what it makes, so that it saves on both sides. What the
    traced graph does not show is not saved. Where zeros are skipped it is less by those channels
    that stay for a constant alone.

    Parameters
    ----------
    layers
        Those that are pruned.
    dense
        Layer → multiplications of the dense network, also of layers that are not pruned.
    """

    def __init__(self, layers: LayerSet, dense: Mapping[str, int]) -> None:
        self._total = sum(dense.values())
        everything = (*layers, *layers.others)
        places = {layer.name: place for place, layer in enumerate(layers)}
        made: dict[str, _Flow | None] = {}
        read: dict[str, list[_Flow | None]] = {}
        for channels in find_channels(layers.graph, everything):
            flow = _flow(channels, layers, places)
            made |= dict.fromkeys(channels.makers, flow)
            for reader in channels.readers:
                read.setdefault(reader, []).append(flow)
        self._terms = [
            _Term(
                dense.get(layer.name, 0),
                places.get(layer.name),
                layer.size,
                made.get(layer.name),
                # One that runs several times may read others each time.
                found[0] if len(found := read.get(layer.name, [None])) == 1 else None,
            )
            for layer in everything
        ]

    def __call__(self, counts: Sequence[int]) -> Fraction:
        return sum((term.left(counts) for term in self._terms), Fraction()) / self._total


def _flow(channels: Channels, layers: LayerSet, places: Mapping[str, int]) -> _Flow | None:
    """None where the channels cannot be removed, or are made by layers that are not pruned."""
    if not (channels.removable and channels.makers and places.keys() >= {*channels.makers}):
        return None
    makers = tuple((places[name], layers[name].structure.least) for name in channels.makers)
    carried = any(_is_padded(layers.geometry(name)) for name in channels.readers)
    return _Flow(layers[channels.makers[0]].rows, makers, carried)


def _is_padded(geometry: object) -> bool:
    padding = getattr(geometry, "padding", "valid")
    return padding != "valid" and any(size != 0 for size in padding)
