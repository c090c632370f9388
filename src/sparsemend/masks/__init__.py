"""Which weights of a layer survive, given how many: one file per rule, and a registry."""

from sparsemend.masks.own_outputs import dense_fit
from sparsemend.masks.pruning import (
    Masks,
    apply_masks,
    check_fit,
    choose_masks,
    find_masks,
    parameter_masks,
    prune,
)
from sparsemend.masks.registry import (
    MASKS,
    default_mask,
    get_lone_mask_rule,
    get_mask_rule,
    mask_names,
)
from sparsemend.masks.rule import LayerFit, MaskProblem, MaskRule, Needs

__all__ = [
    "MASKS",
    "LayerFit",
    "MaskProblem",
    "MaskRule",
    "Masks",
    "Needs",
    "apply_masks",
    "check_fit",
    "choose_masks",
    "default_mask",
    "dense_fit",
    "find_masks",
    "get_lone_mask_rule",
    "get_mask_rule",
    "mask_names",
    "parameter_masks",
    "prune",
]
