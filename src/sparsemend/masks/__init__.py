"""Which weights of a layer survive, given how many: one file per rule, and a registry."""

from sparsemend.masks.gradual import gradual
from sparsemend.masks.pruning import Masks, apply_masks, choose_masks, find_masks, prune
from sparsemend.masks.registry import (
    JOINT,
    MASKS,
    NEEDS_CALIBRATION,
    MaskRule,
    get_mask_rule,
    mask_names,
    nested_entries,
)
from sparsemend.solvers.ranking import descending_rank, keep_mask

__all__ = [
    "JOINT",
    "MASKS",
    "NEEDS_CALIBRATION",
    "MaskRule",
    "Masks",
    "apply_masks",
    "choose_masks",
    "descending_rank",
    "find_masks",
    "get_mask_rule",
    "gradual",
    "keep_mask",
    "mask_names",
    "nested_entries",
    "prune",
]
