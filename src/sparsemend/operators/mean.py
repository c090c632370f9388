"""Mean matching: only the shift, g = 1."""

import torch

from sparsemend.operators.operator import Operator

MEAN = Operator("mean", lambda s: torch.ones_like(s.pruned_variance))
