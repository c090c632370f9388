"""What a kind of layer reads of the description of one layer."""

from __future__ import annotations

from typing import Protocol


class LayerShape(Protocol):
    """The part of :class:`sparsemend.layers.Layer` that says how its weight is laid out."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the stored weight."""

    @property
    def groups(self) -> int:
        """Number of groups, each of which sees inputs of its own."""

    @property
    def rows(self) -> int:
        """Output channels C."""

    @property
    def fan_in(self) -> int:
        """Weights of one output channel, d."""

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Spatial extent of the kernel; empty where there is none."""
