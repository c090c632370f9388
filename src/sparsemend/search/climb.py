"""Where a local search stands, and how large its next steps are."""

from __future__ import annotations

from sparsemend.search.directions import Array, Move

# First step, and what becomes of it.
_FIRST = 0.5
_GROW, _SHRINK, _SMALLEST = 1.5, 0.5, 0.08


class Climb:
    """A point, the last confirmed one, and a step for every move."""

    def __init__(self, point: Array, name: str) -> None:
        self.point, self._confirmed = point, point
        self._start, self._steps = name, dict[tuple[str, str], float]()
        self._signs: dict[tuple[str, str], float] = {}
        self._moves, self.unconfirmed = 0, 0

    @property
    def name(self) -> str:
        plural = "" if self._moves == 1 else "s"
        return f"{self._start} after {self._moves} move{plural}"

    def may_help(self, move: Move) -> bool:
        """Whether its step is still large enough to make a difference."""
        return self.step(move) > _SMALLEST

    def step(self, move: Move) -> float:
        return self._steps.setdefault(move.key, _FIRST)

    def signs(self, move: Move) -> tuple[float, float]:
        """The side that helped last comes first."""
        sign = self._signs.get(move.key, 1.0)
        return sign, -sign

    def accept(self, move: Move, sign: float, point: Array) -> None:
        self.point, self._signs[move.key] = point, sign
        self._steps[move.key] *= _GROW
        self._moves += 1
        self.unconfirmed += 1

    def refuse(self, move: Move) -> None:
        self._steps[move.key] *= _SHRINK

    def confirm(self) -> None:
        self._confirmed, self.unconfirmed = self.point, 0

    def revert(self) -> None:
        """Back to the last confirmed point, with smaller steps."""
        self.point = self._confirmed
        self._moves -= self.unconfirmed
        self.unconfirmed = 0
        self._steps = {key: _SHRINK * step for key, step in self._steps.items()}
