"""Whole output channels, without which a layer is a smaller dense one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from sparsemend.patterns.matrix_shape import MatrixShape
from sparsemend.patterns.pattern import Pattern
from sparsemend.patterns.tiles import TiledStructure


@dataclass(frozen=True)
class Channel(Pattern):
    """``channel``: all weights of an output channel, or none.

    Attributes
    ----------
    coupled
        Layers that keep the same channels, since these meet in a sum; empty for a layer by itself.
    """

    coupled: tuple[str, ...] = ()
    spelling: ClassVar[str] = "channel"
    takes_channels: ClassVar[bool] = True

    @classmethod
    def read(cls, text: str) -> Self | None:
        return cls() if text == cls.spelling else None

    @property
    def name(self) -> str:
        return self.spelling

    def coupled_as(self, names: tuple[str, ...]) -> Self:
        return replace(self, coupled=names)

    def on(self, shape: MatrixShape) -> TiledStructure:
        structure = TiledStructure(shape, 1, shape.channels, shape.taps)
        structure.coupled = self.coupled
        return structure
