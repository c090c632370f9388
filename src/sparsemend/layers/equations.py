"""Equations of ``torch.einsum`` that multiply an input with a weight, as linear layers."""

from __future__ import annotations

import math
import string
from collections import Counter
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
    if not isinstance(equation, str):
        return None
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    labels = inputs.split(",")
    weights = [is_weight(operand) for operand in operands]
    if len(labels) != len(operands) or all(weights) or not any(weights):
        return None
    if not arrow:
        out = _implied(inputs)
    if len(labels) > 2:
        return None if "..." in equation else _in_pairs(labels, operands, out, is_weight)
    if len(labels) < 2:
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
    if plan.matrices(weight) is None:
        return None
    return lambda *_, **__: plan.apply(x, weight)


def tensordot_equation(a: Tensor, b: Tensor, dims: Any) -> str:
    """The equation of ``torch.tensordot``."""
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        dims = (range(a.dim() - dims, a.dim()), range(dims))
    ours = list(string.ascii_letters[: a.dim()])
    theirs = list(string.ascii_letters[a.dim() : a.dim() + b.dim()])
    for one, other in zip(*dims, strict=True):
        theirs[other] = ours[one]
    out = [label for label in ours + theirs if (ours + theirs).count(label) == 1]
    return f"{''.join(ours)},{''.join(theirs)}->{''.join(out)}"


def _implied(inputs: str) -> str:
    """The output of an equation without an arrow: labels that appear once, in their order."""
    counts = Counter(inputs.replace("...", "").replace(",", ""))
    once = "".join(sorted(label for label, count in counts.items() if count == 1))
    return ("..." if "..." in inputs else "") + once


def _in_pairs(
    labels: list[str], operands: list[Tensor], out: str, is_weight: Callable[[Tensor], bool]
) -> Callable[..., Tensor]:
    """An equation of several operands as equations of two, from one that is no weight."""

    def apply(*_: Any, **__: Any) -> Tensor:
        rest = list(zip(labels, operands, strict=True))
        ours, x = rest.pop(next(i for i, (_, one) in enumerate(rest) if not is_weight(one)))
        while rest:
            shared = (i for i, (theirs, _) in enumerate(rest) if set(theirs) & set(ours))
            theirs, other = rest.pop(next(shared, 0))
            needed = set(out).union(*(label for label, _ in rest))
            kept = "".join(c for c in dict.fromkeys(ours + theirs) if c in needed)
            kept = kept if rest else out
            x = torch.einsum(f"{ours},{theirs}->{kept}", x, other)
            ours = kept
        return x

    return apply


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
            stack = turned.view(sizes)
        except RuntimeError:
            return None
        return [stack[e] for e in range(len(stack))]

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """The output."""
        matrices = self.matrices(weight)
        assert matrices is not None, "looked at before"
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
