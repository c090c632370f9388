"""The known operators; to add one, write a file for it and enter its record here.

Every operator is a repair too, and has a closed form for diagnoses.
"""

from sparsemend.operators.affine import AFFINE
from sparsemend.operators.layerwise import LAYERWISE
from sparsemend.operators.mean import MEAN
from sparsemend.operators.none import NONE
from sparsemend.operators.operator import Operator
from sparsemend.operators.shrinkage import SHRINKAGE
from sparsemend.operators.variance import VARIANCE

OPERATORS: dict[str, Operator] = {
    operator.name: operator for operator in (NONE, MEAN, VARIANCE, LAYERWISE, SHRINKAGE, AFFINE)
}
