"""The known repairs; to add one, write a file for it and enter its record here.

Every operator is a repair as well, without an entry of its own.
"""

from __future__ import annotations

from sparsemend.errors import SparsemendError, did_you_mean
from sparsemend.operators import OPERATORS
from sparsemend.repairs.batchnorm import BATCHNORM, BATCHNORM_EMA
from sparsemend.repairs.best import make_best
from sparsemend.repairs.channelwise import channelwise
from sparsemend.repairs.distill import DISTILL
from sparsemend.repairs.reconstruct import (
    RECONSTRUCT,
    RECONSTRUCT_AGAIN,
    RECONSTRUCT_AUGMENTED,
    RECONSTRUCT_MIRRORED,
    RECONSTRUCT_MIRRORED_AGAIN,
)
from sparsemend.repairs.repair import Repair


def repairs() -> dict[str, Repair]:
    """Name → repair: the operators, then :data:`REPAIRS`."""
    return {name: channelwise(operator) for name, operator in OPERATORS.items()} | REPAIRS


REPAIRS: dict[str, Repair] = {
    repair.name: repair
    for repair in (
        RECONSTRUCT,
        RECONSTRUCT_MIRRORED,
        RECONSTRUCT_AGAIN,
        RECONSTRUCT_MIRRORED_AGAIN,
        RECONSTRUCT_AUGMENTED,
        BATCHNORM,
        BATCHNORM_EMA,
        DISTILL,
        make_best(lambda: list(repairs().values())),
    )
}


def repair_names() -> tuple[str, ...]:
    """Names of the repairs that a formula may be made of."""
    return tuple(repairs())


def find_repair(name: object) -> Repair | None:
    """The repair of this name or alias; None if there is none."""
    if not isinstance(name, str):
        return None
    known = repairs()
    aliased = (repair for repair in known.values() if name in repair.aliases)
    return known.get(name) or next(aliased, None)


def get_repair(name: str) -> Repair:
    """The same.

    Raises
    ------
    SparsemendError
        If there is none; names the known ones.
    """
    found = find_repair(name)
    if found is None:
        raise SparsemendError(
            "unknown repair",
            name,
            ", ".join(repairs()),
            did_you_mean(name, repairs()),
        )
    return found
