"""Wanda's masks (arXiv 2306.11695): |w_ij| · ‖x_j‖, compared within each output channel."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsemend.errors import SparsemendError


def activation(weight: Tensor, column_square: Tensor | None) -> Tensor:
    """Rank weights [groups, rows, d] by |w_ij| · sqrt(E x_j²), row by row.

    Every row keeps the same number; where the count does not divide, earlier rows keep one
    more.
    """
    if column_square is None:
        raise SparsemendError(
            "mask 'activation' needs the inputs' second moments",
            fix="pass calibration=sparsemend.calibrate(model, batches)",
        )
    score = weight.abs() * column_square.sqrt().to(weight.dtype).unsqueeze(1)
    order = torch.sort(score, dim=2, descending=True, stable=True).indices
    places = torch.arange(order.shape[2], device=order.device).expand_as(order)
    within_row = torch.empty_like(order).scatter_(2, order, places)
    rows = weight.shape[0] * weight.shape[1]
    row = torch.arange(rows, device=order.device).reshape(*weight.shape[:2], 1)
    return within_row * rows + row
