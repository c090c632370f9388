"""The known mask rules; to add one, write a file for it and enter its record here."""

from __future__ import annotations

from sparsemend.errors import SparsemendError, did_you_mean
from sparsemend.masks.activation import ACTIVATION
from sparsemend.masks.gradual import GRADUAL
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.masks.rule import MaskRule

MASKS: dict[str, MaskRule] = {rule.name: rule for rule in (MAGNITUDE, ACTIVATION, GRADUAL)}


def mask_names() -> tuple[str, ...]:
    """Names of all mask rules."""
    return tuple(MASKS)


def get_mask_rule(name: str) -> MaskRule:
    """The mask rule of this name.

    Raises
    ------
    SparsemendError
        If there is none; names the known ones.
    """
    if not isinstance(name, str) or name not in MASKS:
        raise SparsemendError("unknown mask", name, ", ".join(MASKS), did_you_mean(name, MASKS))
    return MASKS[name]


def get_lone_mask_rule(name: str) -> MaskRule:
    """The mask rule of this name, to choose masks without a repair.

    Raises
    ------
    SparsemendError
        If there is none, or it chooses jointly with a repair.
    """
    rule = get_mask_rule(name)
    if rule.joint:
        alone = ", ".join(other.name for other in MASKS.values() if not other.joint)
        raise SparsemendError(
            f"mask {name!r} is chosen jointly with the reconstructed values",
            allowed=f"{alone} where weights are pruned on their own",
            fix="use sparsemend.compress with a repair that reconstructs",
        )
    return rule


def default_mask(chooses_masks: bool) -> MaskRule:
    """What is meant where no mask rule is named: for a repair that chooses masks, or another."""
    return GRADUAL if chooses_masks else MAGNITUDE
