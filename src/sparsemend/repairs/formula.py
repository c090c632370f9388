"""Repairs are named by a formula: an operator, a recalibration, or ``operator+recalibration``."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from sparsemend.errors import SparsemendError
from sparsemend.operators import OPERATORS, Operator
from sparsemend.repairs.batchnorm import MODES

BEST = "best"
SCOPES = ("sequential", "one-shot")


@dataclass(frozen=True)
class RepairPlan:
    """A parsed repair: an operator on every layer, then BatchNorm recalibration.

    Attributes
    ----------
    operator
        Channelwise operator, or None.
    batchnorm
        ``"exact"``, ``"ema"`` or None.
    best
        Whether several repairs are tried and the best is kept; then it has no parts.
    """

    operator: Operator | None
    batchnorm: str | None
    best: bool = False

    @property
    def reconstructs(self) -> bool:
        """Whether the kept weights are refitted."""
        return self.operator is not None and self.operator.refits

    def __str__(self) -> str:
        if self.best:
            return BEST
        parts = [] if self.operator is None else [self.operator.name]
        if self.batchnorm is not None:
            parts.append("batchnorm" if self.batchnorm == "exact" else f"batchnorm-{MODES[1]}")
        return "+".join(parts)

    @property
    def diagnosis(self) -> str:
        """The operator whose residual stands for this repair in a diagnosis.

        Recalibrated BatchNorm matches every channel's mean and variance.
        """
        if self.best:
            return "reconstruct"
        if self.operator is not None and (self.operator.name != "none" or not self.batchnorm):
            return self.operator.name
        return "variance"


def repair_names() -> tuple[str, ...]:
    """The parts that a repair may be made of."""
    return (*OPERATORS, *(f"batchnorm-{mode}" for mode in MODES), BEST)


def parse_repair(text: str) -> RepairPlan:
    """Read ``"variance"``, ``"batchnorm"``, ``"shrinkage+batchnorm(ema)"`` and the like.

    ``batchnorm`` alone means mode ``exact``; ``batchnorm-ema`` and ``batchnorm(ema)`` are the
    same.

    Raises
    ------
    SparsemendError
        For an unknown part (names the known ones) or parts in an impossible order.
    """
    if str(text).strip() == BEST:
        return RepairPlan(None, None, best=True)
    operator, recalibration = None, None
    for part in (piece.strip() for piece in str(text).split("+")):
        found = re.fullmatch(r"batchnorm(?:[-:(](\w+)\)?)?", part)
        if found and (found[1] or MODES[0]) in MODES and recalibration is None:
            recalibration = found[1] or MODES[0]
        elif part in OPERATORS and operator is None and recalibration is None:
            operator = OPERATORS[part]
        else:
            close = difflib.get_close_matches(part, repair_names(), n=1)
            raise SparsemendError(
                "unknown repair",
                text,
                f"{BEST}, one of {', '.join(OPERATORS)}, or batchnorm, batchnorm-ema, or both as "
                "in 'variance+batchnorm'",
                f"did you mean {close[0]!r}?" if close and close[0] != part else "",
            )
    return RepairPlan(operator, recalibration)
