"""Imported first of all: the program may be interrupted while the rest is still being loaded.

That takes seconds, most of them PyTorch's. An interrupt is then one line, as it is later; whoever
imports the library into a program of their own sees no difference.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def is_program() -> bool:
    """Whether this process is the command ``sparsemend``, or ``python -m sparsemend``."""
    started = sys.argv[0] if sys.argv else ""
    if started == "-m":  # Python is still looking for the module
        return "sparsemend" in sys.orig_argv
    path = Path(started)
    return path.stem == "sparsemend" or path.parts[-2:] == ("sparsemend", "__main__.py")


def say_interrupted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What ``sys.excepthook`` is while the program is being loaded."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("interrupted; nothing was written", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)  # else Python ends by the signal, and says another code


if is_program():
    sys.excepthook = say_interrupted
