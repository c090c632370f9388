"""Reports: figures, plain words and numbers of results, as one page or as files.

A figure is plain data (:mod:`sparsemend.report._figure`). To add one, write a file with a function
``figures`` from :class:`Contents` to figures, and enter it in ``FIGURES`` in
:mod:`sparsemend.report._report`.
"""

from sparsemend.report._compare import other_rules
from sparsemend.report._contents import Compression, Contents
from sparsemend.report._report import FIGURES, Report, report

__all__ = ["FIGURES", "Compression", "Contents", "Report", "other_rules", "report"]
