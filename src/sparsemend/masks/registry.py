"""The known mask rules.

A rule ranks the weights [groups, rows, d] of a layer, 0 first; the best-ranked are kept. It may
read E[x_j²] of the input columns [groups, d], which is None where there was no calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparsemend.errors import SparsemendError
from sparsemend.masks.activation import activation
from sparsemend.masks.magnitude import magnitude
from sparsemend.solvers.ranking import entries_by_score, entry_numbers

MaskRule = Callable[[Tensor, Tensor | None], Tensor]

MASKS: dict[str, MaskRule] = {"magnitude": magnitude, "activation": activation}
# Rules that rank a layer by one score, for which there is a faster way to nested masks.
SCORES: dict[str, Callable[[Tensor], Tensor]] = {"magnitude": torch.abs}
NEEDS_CALIBRATION = frozenset({"activation"})
# Chosen together with the reconstructed values, so no rank of the dense weights.
JOINT = "gradual"


def mask_names() -> tuple[str, ...]:
    """All mask rules, the joint one included."""
    return (*MASKS, JOINT)


def get_mask_rule(name: str) -> MaskRule:
    """The mask rule of this name.

    Raises
    ------
    SparsemendError
        If there is none; names the known ones.
    """
    if name == JOINT:
        raise SparsemendError(
            f"mask {JOINT!r} is chosen jointly with the reconstructed values",
            allowed=f"{', '.join(MASKS)} where weights are pruned on their own",
            fix="use sparsemend.compress with a repair that reconstructs",
        )
    if name not in MASKS:
        raise SparsemendError("unknown mask", name, ", ".join(mask_names()))
    return MASKS[name]


def nested_entries(
    name: str, weight: Tensor, column_square: Tensor | None, kept: Sequence[int]
) -> Tensor:
    """Which of a rule's nested masks is the first to hold each weight.

    Parameters
    ----------
    name
        Of the mask rule.
    weight, column_square
        As the rule takes them.
    kept
        K ascending counts of kept weights.

    Returns
    -------
    Tensor
        Numbers from 0 to K in the shape of ``weight``; K where no mask holds the weight.
    """
    rule = get_mask_rule(name)
    if name in SCORES:
        return entries_by_score(SCORES[name](weight), kept)
    return entry_numbers(rule(weight, column_square), kept)
