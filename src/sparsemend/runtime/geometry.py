"""How the values of a network lie in the arena.

There are three layouts; ``native/steps.h`` has them too. *Planes*, of one lane: vectors run along
the positions of one image. What is right of a row is left of the next, so that one offset reaches a
neighbour from anywhere. A stride-1 convolution maps flat positions to flat positions; its input and
output have the same pitch. *Batches*, of the lanes of a vector: vectors run over images. *Blocks*,
of the lanes of a vector too: an image is cut into as many blocks, and vectors run over these, so
that neighbours are whole vectors away and vectors aligned. Margins of a block have copies of what
is beside it in the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparsemend.runtime.steps import View

_ALIGNMENT = 16  # floats of a cache line


@dataclass(frozen=True)
class Geometry:
    """Layout of a value; sizes are in floats.

    Attributes
    ----------
    lanes
        Values that are side by side at every position: of images, or of blocks of one.
    channels, height, width
        Of the value; positions of an image, or of a block of it.
    pitch
        Positions of a row.
    lead
        Zeros in front of every channel's first position.
    plane
        From a channel to the next.
    grid
        Rows and columns of blocks.
    margin
        Of a block: (rows, columns) in front of it and beyond it.
    """

    lanes: int
    channels: int
    height: int
    width: int
    pitch: int
    lead: int
    plane: int
    grid: tuple[int, int] = (1, 1)
    margin: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))

    @property
    def image(self) -> int:
        """From an image, or group of them, to the next."""
        return rounded(self.channels * self.plane, _ALIGNMENT)

    @property
    def margins(self) -> tuple[int, ...]:
        """What buffers must have in common, so that zeros of one are zeros of the other."""
        if self.grid != (1, 1) or self.plane == self.height * self.width * self.lanes:
            return ()  # there are none, or they are filled each time
        return (self.lanes, self.height, self.width, self.pitch, self.lead, self.plane)

    def view(self, origin: int) -> View:
        """The value in a buffer that begins at ``origin``."""
        return View(
            origin + self.lead,
            self.image,
            self.plane,
            self.channels,
            self.height,
            self.width,
            self.pitch,
            self.lanes,
            *self.grid,
        )

    @property
    def is_compact(self) -> bool:
        """Whether a vector of channels is contiguous: layout planes, one position."""
        return self.lanes == 1 and self.height == self.width == 1 and self.plane == 1


def rounded(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple


@dataclass
class Needs:
    """What the readers of a value ask of its layout.

    Attributes
    ----------
    width
        Positions of a row that may be read from its first, the row's own included.
    left
        Zeros that are needed left of a row.
    before, beyond
        (rows, positions) that are read before the first, and the same beyond: pairs of which the
        flat offset is the largest, once the pitch is known.
    """

    width: int = 0
    left: int = 0
    before: tuple[int, int] = (0, 0)
    beyond: tuple[int, int] = (0, 0)

    def read(self, width: int, left: int, before: tuple[int, int], beyond: tuple[int, int]) -> None:
        """A reader; each number is the largest of all readers."""
        self.width = max(self.width, width)
        self.left = max(self.left, left)
        self.before = (max(self.before[0], before[0]), max(self.before[1], before[1]))
        self.beyond = (max(self.beyond[0], beyond[0]), max(self.beyond[1], beyond[1]))

    def pitch(self, width: int) -> int:
        """The least pitch for a value of this width."""
        return max(width + self.left, self.width)


class Classes:
    """Names that share something: union and find."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def find(self, name: str) -> str:
        """The representative of a name's class."""
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name

    def join(self, first: str, second: str) -> None:
        """Make one class of two."""
        self._parent[self.find(first)] = self.find(second)


def compact(channels: int) -> Geometry:
    """A vector of channels, layout planes; elementwise steps run over it as over a row."""
    return Geometry(1, channels, 1, 1, 1, 0, 1)


def planes(shape: tuple[int, int, int], needs: Needs, pitch: int, vector: int) -> Geometry:
    """Layout planes of a value [C, H, W]; ``vector`` floats are written at once."""
    channels, height, width = shape
    lead = rounded(needs.before[0] * pitch + needs.before[1], _ALIGNMENT)
    # The last vector of a reader begins in the image and may end beyond it.
    body = rounded(height * pitch, vector)
    beyond = rounded((height + needs.beyond[0]) * pitch + needs.beyond[1], vector) + vector
    return Geometry(
        1, channels, height, width, pitch, lead, rounded(lead + max(body, beyond), _ALIGNMENT)
    )


def batches(shape: tuple[int, int, int], needs: Needs, lanes: int) -> Geometry:
    """Layout batches of a value [C, H, W]."""
    channels, height, width = shape
    pitch = needs.pitch(width)
    lead = needs.before[0] * pitch + needs.before[1]
    positions = lead + (height + needs.beyond[0]) * pitch + needs.beyond[1]
    if not (needs.before[0] or needs.before[1] or needs.beyond[0] or needs.beyond[1]):
        positions = height * pitch
    return Geometry(lanes, channels, height, width, pitch, lead * lanes, positions * lanes)


def blocks(shape: tuple[int, int, int], needs: Needs, grid: tuple[int, int]) -> Geometry:
    """Layout blocks of a value [C, H, W], whose H and W are those of a block."""
    channels, height, width = shape
    lanes = grid[0] * grid[1]
    before, beyond = (needs.before[0], needs.left), (needs.beyond[0], max(0, needs.width - width))
    pitch = before[1] + width + beyond[1]
    lead = before[0] * pitch + before[1]
    positions = (before[0] + height + beyond[0]) * pitch
    return Geometry(
        lanes, channels, height, width, pitch, lead * lanes, positions * lanes, grid,
        (before, beyond),
    )  # fmt: skip
