"""The shape of a layer's weight as patterns see it."""

from __future__ import annotations

from typing import NamedTuple


class MatrixShape(NamedTuple):
    """A weight matrix [groups, rows, d] whose d columns are input channels times kernel positions.

    Attributes
    ----------
    groups
        Of channels that do not see each other.
    rows
        Output channels of a group.
    channels
        Input channels of a group; of a linear layer, its columns.
    taps
        Positions of the kernel, the inner of the two; 1 for linear layers.
    """

    groups: int
    rows: int
    channels: int
    taps: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.groups * self.rows * self.channels * self.taps
