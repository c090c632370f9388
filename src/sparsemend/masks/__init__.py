"""Which weights of a layer survive, given how many: one file per rule, and a registry."""

from sparsemend.masks._prune import Masks, apply_masks, choose_masks, find_masks, prune
from sparsemend.masks._rank import descending_rank, keep_mask
from sparsemend.masks._registry import (
    JOINT,
    MASKS,
    NEEDS_CALIBRATION,
    MaskRule,
    get_mask_rule,
    mask_names,
    nested_entries,
)
from sparsemend.masks.gradual import gradual

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
