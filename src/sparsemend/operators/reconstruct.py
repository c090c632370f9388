"""Least squares on the kept weights: the repair that changes more than scale and shift."""

import torch

from sparsemend.operators.operator import Operator

# It has no scale of its own: its values come from the layer's input moments.
RECONSTRUCT = Operator(
    "reconstruct", lambda s: torch.ones_like(s.pruned_variance), refits=True, positive=False
)
