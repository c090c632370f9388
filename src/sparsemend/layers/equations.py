"""Equations of ``torch.einsum`` that multiply an input with a weight, as linear layers."""

from __future__ import annotations

import math
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def written_out(
    args: tuple[Any, ...], is_weight: Callable[[Tensor], bool]
) -> Callable[..., Any] | None:
    """``torch.einsum`` of an input and a weight as a linear layer, or one for each expert.

    Parameters
    ----------
    args
        The equation and its operands.
    is_weight
        Whether a tensor is a parameter, or a view of one.

    Returns
    -------
    callable or None
        What to call instead, with any arguments; None where it is no product of that kind.
    """
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = list(operands[0])
    if not isinstance(equation, str) or "->" not in equation or len(operands) != 2:
        return None
    inputs, out = equation.replace(" ", "").split("->")
    labels = inputs.split(",")
    weights = [is_weight(operand) for operand in operands]
    if sum(weights) != 1 or len(labels) != 2:
        return None
    (ours, x), (theirs, weight) = sorted(
        zip(labels, operands, strict=True), key=lambda pair: is_weight(pair[1])
    )
    if "..." in ours:
        spare = [c for c in string.ascii_letters if c not in equation]
        many = "".join(spare[: x.dim() - len(ours) + 3])
        ours, out = ours.replace("...", many), out.replace("...", many)
    plan = Contraction.of(ours, theirs, out)
    if plan is None or len(ours) != x.dim() or len(theirs) != weight.dim():
        return None
    matrices = plan.matrices(weight)
    return None if matrices is None else lambda *_: plan.apply(x, weight, matrices)


@dataclass(frozen=True)
class Contraction:
    """Labels of x, of the weight and of the output; which are experts', summed over, and rows."""

    ours: str
    theirs: str
    out: str
    experts: str
    summed: str
    rows: str

    @classmethod
    def of(cls, ours: str, theirs: str, out: str) -> Contraction | None:
        """None where it is no product of the inputs with matrices."""
        experts = [label for label in theirs if label in ours and label in out]
        summed = [label for label in theirs if label in ours and label not in out]
        rows = [label for label in theirs if label not in ours and label in out]
        if len(rows) > 1 and theirs[0] in rows and not experts:  # all experts see the same inputs
            experts = [rows.pop(0)]
        once = all(len(set(part)) == len(part) for part in (ours, theirs, out))
        whole = len(experts) + len(summed) + len(rows) == len(theirs)
        kept = set(ours) - set(summed) <= set(out) <= set(ours) | set(theirs)
        if not (once and whole and kept and summed and rows):
            return None
        return cls(ours, theirs, out, "".join(experts), "".join(summed), "".join(rows))

    def matrices(self, weight: Tensor) -> list[Tensor] | None:
        """[rows, summed] for each expert, in the weight's own memory; None if they have no view."""
        order = [self.theirs.index(label) for label in self.experts + self.rows + self.summed]
        turned, e, r = weight.permute(order), len(self.experts), len(self.rows)
        shape = turned.shape
        sizes = (math.prod(shape[:e]), math.prod(shape[e : e + r]), math.prod(shape[e + r :]))
        try:
            return list(turned.view(sizes).unbind(0))
        except RuntimeError:
            return None

    def apply(self, x: Tensor, weight: Tensor, matrices: list[Tensor]) -> Tensor:
        """The output."""
        rest = "".join(c for c in self.ours if c not in self.experts + self.summed)
        size = dict(zip(self.theirs, weight.shape, strict=True))
        experts = [size[label] for label in self.experts]
        if self.experts and self.experts not in self.ours:
            x = x.permute([self.ours.index(label) for label in rest + self.summed])
            parts = [x] * len(matrices)
        else:
            order = [self.ours.index(label) for label in self.experts + rest + self.summed]
            parts = list(x.permute(order).flatten(0, len(experts) - 1)) if experts else []
            parts = parts or [x.permute(order)]
        found: Any = torch.stack(
            [
                F.linear(part.flatten(len(rest)), matrix)
                for part, matrix in zip(parts, matrices, strict=True)
            ]
        )
        found = found.unflatten(-1, [size[label] for label in self.rows])
        found = found.unflatten(0, experts) if experts else found.squeeze(0)
        labels = self.experts + rest + self.rows
        output: Tensor = found.permute([labels.index(label) for label in self.out])
        return output
