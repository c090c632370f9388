"""Kinds of layers, one file each: all that depends on what kind of layer it is.

The library sees a weight as a matrix [groups, rows per group, fan-in] and a layer's inputs as
columns of that matrix, [groups, positions, fan-in]: outputs are ``inputs @ matrix.mT`` plus bias.
A kind says how its modules come to that form; discovery, calibration, diagnosis, masks and
repairs then work on it.

**A new kind of layer**: write ``layers/kinds/mykind.py`` with a subclass of :class:`LayerKind`,
and enter an instance of it in ``KINDS`` in ``layers/kinds/registry.py``. A kind must say

- ``modules``: which module types it covers, and what layers of each are called;
- ``label``: how error messages list them;
- ``read``: an operation of PyTorch as a :class:`Call` of such a layer, or None;
- ``apply``: that operation with another weight and bias;
- ``rows``: the number of output channels of a module;
- ``unfold``: a module's input as columns of the matrix.

Everything else has a default, for a layer whose weight is stored row by row, whose output has its
channels last, and that works on every position alone. Defaults go through ``unfold`` and are
right for every such kind; override them where there is a faster way, or another layout. Kinds
with a kernel that moves over a grid share ``MovingKernel``, in ``layers/kinds/moving_kernel.py``.

What methods get as ``module`` is a geometry: a module of the kind without parameters, as ``read``
makes it with :func:`bare`. A module of a kind itself holds the weight in a parameter ``weight``,
and has a parameter ``bias`` of one value per row, which may be None: a repair that is asked for
new biases registers it, and the module must add it then.
"""

from sparsemend.layers.kinds.axis import Axis
from sparsemend.layers.kinds.call import Call, bare, bound
from sparsemend.layers.kinds.kind import LayerKind
from sparsemend.layers.kinds.registry import (
    KINDS,
    is_layer,
    kind_named,
    kind_of,
    labels,
    plain_layers,
    read_call,
)

__all__ = [
    "KINDS",
    "Axis",
    "Call",
    "LayerKind",
    "bare",
    "bound",
    "is_layer",
    "kind_named",
    "kind_of",
    "labels",
    "plain_layers",
    "read_call",
]
