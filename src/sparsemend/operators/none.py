"""No repair: the residual is the raw distortion."""

import torch

from sparsemend.operators.operator import Operator

NONE = Operator("none", lambda s: torch.ones_like(s.pruned_variance), matches_mean=False)
