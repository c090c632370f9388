"""Whole output channels, without which a layer is a smaller dense one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from sparsemend.patterns.matrix_shape import MatrixShape
from sparsemend.patterns.pattern import Pattern
from sparsemend.patterns.tiles import TiledStructure


@dataclass(frozen=True)
class Channel(Pattern):
    """``channel``: all weights of an output channel, or none."""

    spelling: ClassVar[str] = "channel"
    takes_channels: ClassVar[bool] = True

    @classmethod
    def read(cls, text: str) -> Self | None:
        return cls() if text == cls.spelling else None

    @property
    def name(self) -> str:
        return self.spelling

    def on(self, shape: MatrixShape) -> TiledStructure:
        return TiledStructure(shape, 1, shape.channels, shape.taps)
