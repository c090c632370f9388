"""How long a distillation may train: a number of steps, or minutes."""

from __future__ import annotations

import math

from sparsemend.errors import SparsemendError
from sparsemend.recipe.budget import read_amount
from sparsemend.repairs import DistillSettings, Formula

_ALLOWED = "a whole number of steps, such as 400, or a time, such as '2min'"


def parse_distill(value: float | str | None, formula: Formula) -> DistillSettings | None:
    """Read ``400``, ``"400"``, ``"2min"`` or ``"90s"``; None is the default of the repair.

    Parameters
    ----------
    value
        What was said.
    formula
        The repair, which has to train.

    Returns
    -------
    DistillSettings or None
        None where the repair does not train.

    Raises
    ------
    SparsemendError
        For anything else, and for a repair that never trains.
    """
    if value is None:
        return DistillSettings() if formula.training == "always" else None
    amount = read_amount(value)
    if amount is None or not (amount[1] or amount[0].is_integer()):
        raise SparsemendError("the length of the distillation is not understood", value, _ALLOWED)
    if formula.training == "never":
        raise SparsemendError(
            f"repair {str(formula)!r} does not train, so there is no use for distill",
            value,
            "a repair such as 'reconstruct+distill', or 'best'",
        )
    number, timed = amount
    if timed:
        return DistillSettings(steps=math.inf, seconds=number)
    return DistillSettings(steps=number)
