"""Repair operators: one file each, and this registry. Diagnosis and repair both read them.

An operator turns paired statistics of dense and pruned outputs into a scale per channel. Its
residual then follows in closed form, and its repair by folding.
"""

from sparsemend.errors import SparsemendError
from sparsemend.operators.affine import AFFINE
from sparsemend.operators.layerwise import LAYERWISE
from sparsemend.operators.mean import MEAN
from sparsemend.operators.none import NONE
from sparsemend.operators.operator import Operator
from sparsemend.operators.reconstruct import RECONSTRUCT
from sparsemend.operators.shrinkage import SHRINKAGE
from sparsemend.operators.variance import VARIANCE

OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (NONE, MEAN, VARIANCE, LAYERWISE, SHRINKAGE, AFFINE, RECONSTRUCT)
}


def get_operator(name: str) -> Operator:
    """The operator of this name.

    Raises
    ------
    SparsemendError
        If there is none; names the known ones.
    """
    if name not in OPERATORS:
        raise SparsemendError("unknown repair operator", name, ", ".join(OPERATORS))
    return OPERATORS[name]


__all__ = ["OPERATORS", "Operator", "get_operator"]
