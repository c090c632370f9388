"""The subject of the job: a dense network and the inputs that its compression works with."""

from sparsemend.session.holdout import hold_out
from sparsemend.session.session import Session

__all__ = ["Session", "hold_out"]
