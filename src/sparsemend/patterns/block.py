"""Small blocks of weights, as vector units of processors compute with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from sparsemend.errors import SparsemendError
from sparsemend.patterns.matrix_shape import MatrixShape
from sparsemend.patterns.pattern import Pattern
from sparsemend.patterns.tiles import TiledStructure


@dataclass(frozen=True)
class Block(Pattern):
    """``block:RxC``: R consecutive output channels by C consecutive input channels.

    At one position of the kernel; what is left over at an edge is a smaller block.
    """

    rows: int
    channels: int
    spelling: ClassVar[str] = "block:RxC as in block:1x4"

    @classmethod
    def read(cls, text: str) -> Self | None:
        if not text.startswith("block"):
            return None
        found = re.fullmatch(r"block:(\d+)x(\d+)", text)
        if found is None or not int(found[1]) or not int(found[2]):
            raise SparsemendError(
                "pattern block:RxC keeps blocks of R output by C input channels",
                text,
                "whole numbers from 1, as in block:1x4",
            )
        return cls(int(found[1]), int(found[2]))

    @property
    def name(self) -> str:
        return f"block:{self.rows}x{self.channels}"

    def on(self, shape: MatrixShape) -> TiledStructure:
        return TiledStructure(shape, self.rows, self.channels, 1)
