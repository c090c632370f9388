"""Wanda's masks (arXiv 2306.11695): |w_ij| · ‖x_j‖, compared within each output channel."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsemend.masks.rule import MaskProblem, MaskRule


def rank(problem: MaskProblem) -> Tensor:
    """Rank weights [groups, rows, d] by |w_ij| · sqrt(E x_j²), row by row.

    Every row keeps the same number; where the count does not divide, earlier rows keep one
    more.
    """
    assert problem.moments is not None, "the rule says that it needs them"
    weight = problem.weight
    scale = problem.moments.column_square.sqrt().to(weight.dtype)
    score = weight.abs() * scale.unsqueeze(1)
    order = torch.sort(score, dim=2, descending=True, stable=True).indices
    places = torch.arange(order.shape[2], device=order.device).expand_as(order)
    within_row = torch.empty_like(order).scatter_(2, order, places)
    rows = weight.shape[0] * weight.shape[1]
    row = torch.arange(rows, device=order.device).reshape(*weight.shape[:2], 1)
    return within_row * rows + row


ACTIVATION = MaskRule("activation", needs="moments", rank=rank)
