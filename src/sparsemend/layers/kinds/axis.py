"""Where the taps of a kernel meet its input, along one dimension of a convolution.

Tap k at output p reads input index p·stride + k·dilation − padding. Split by the stride, that is
index i = p + q of the plane of phase r, the inputs r, r + stride, … .
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """One spatial dimension of a convolution."""

    size: int
    before: int
    after: int
    kernel: int
    stride: int
    dilation: int

    @property
    def positions(self) -> int:
        """Number of outputs."""
        reach = self.dilation * (self.kernel - 1) + 1
        return max(0, (self.size + self.before + self.after - reach) // self.stride + 1)

    def tap(self, k: int) -> tuple[int, int]:
        """Phase r and shift q of tap k."""
        shift, phase = divmod(k * self.dilation - self.before, self.stride)
        return phase, shift

    def index(self, position: int, k: int) -> int:
        """Input index that tap k reads at an output position; it may lie outside."""
        return position * self.stride + k * self.dilation - self.before

    def taps_with_data(self, position: int) -> range:
        """Taps that read data, not padding, at an output position."""
        first = self.index(position, 0)
        start = max(0, -(first // self.dilation))
        return range(start, max(start, min(self.kernel, -(-(self.size - first) // self.dilation))))

    def overlap(self, first: int, second: int) -> tuple[int, int]:
        """Indices of the first tap's plane at outputs where both taps read data."""
        start, stop = 0, self.positions
        for phase, shift in (self.tap(first), self.tap(second)):
            length = -(-(self.size - phase) // self.stride)
            start, stop = max(start, -shift), min(stop, length - shift)
        shift = self.tap(first)[1]
        return start + shift, max(start, stop) + shift
