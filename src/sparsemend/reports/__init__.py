"""Reports: figures, plain words and numbers of results, as one page or as files.

Three rooms: ``figures`` turns results into marks, one file each; ``drawing`` draws them; ``words``
says what they show. To add a figure, write a file in ``figures`` with a function ``figures`` from
:class:`Contents` to figures, and enter it in ``FIGURES`` in
:mod:`sparsemend.reports.figures.registry`.
"""

from sparsemend.reports.compare import other_rules
from sparsemend.reports.compose import Report, report
from sparsemend.reports.contents import Compression, Contents
from sparsemend.reports.figures.registry import FIGURES

__all__ = ["FIGURES", "Compression", "Contents", "Report", "other_rules", "report"]
