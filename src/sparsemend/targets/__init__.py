"""What a sparse network may cost, in the place of a sparsity.

A kind of target is a small file with its record, a :class:`.kind.Kind`, and an entry in
:data:`.registry.KINDS`: how it is read and written, what a weight of every layer costs, and how a
finished network is measured.
"""

from sparsemend.targets.kind import Kind, Subject
from sparsemend.targets.multiplications import kept_share, quota_of
from sparsemend.targets.registry import KINDS
from sparsemend.targets.target import Target, read_target, read_targets

__all__ = [
    "KINDS",
    "Kind",
    "Subject",
    "Target",
    "kept_share",
    "quota_of",
    "read_target",
    "read_targets",
]
