"""The one error type of the library, and the one warning type."""

from __future__ import annotations

import difflib
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

# Characters of a value, and of any other part of a message.
_LONGEST_VALUE = 400
_LONGEST_PART = 1500
# Whose code is not the user's.
_OURS = frozenset({"sparsemend", "torch", *sys.stdlib_module_names}) - {"__main__"}
# What code of others may raise, which may be a program that ends itself.
RAISED = (Exception, SystemExit)
# Where PyTorch's sentence about what happened ends, and those about its build begin.
_EXPLANATIONS = re.compile(r"\n\n| backend\. This could be|, but expected one of:\n")


def printable(text: str, *, keep: str = "") -> str:
    """Return text that says what it holds and does nothing else to a terminal.

    Names of layers come from files: one with an escape sequence could move the cursor or rewrite
    what stands above. Such characters become as in ``repr``.

    Parameters
    ----------
    text
        To be printed.
    keep
        Characters to leave as they are, such as line ends.

    Examples
    --------
    >>> print(printable("conv\\x1b[2J"))
    conv\\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(
        char if _is_harmless(char) or char in keep else char.encode("unicode_escape").decode()
        for char in text
    )


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char == "\xa0"  # the space of "90 %"


def did_you_mean(written: object, names: Iterable[str]) -> str:
    """The fix for a name that is unknown: the nearest known one; empty where none is near.

    Examples
    --------
    >>> did_you_mean("varianze", ["mean", "variance"])
    "did you mean 'variance'?"
    >>> did_you_mean("ERK", ["erk", "lamp"])
    "did you mean 'erk'?"
    """
    known = {name.lower(): name for name in names}
    nearest = difflib.get_close_matches(str(written).lower(), known, n=1)
    return f"did you mean {known[nearest[0]]!r}?" if nearest else ""


def raised_by(error: BaseException, *, name: bool = True) -> str:
    """What an error of other code says, and where in the user's code it arose.

    Parameters
    ----------
    error
        As it was caught.
    name
        Whether to name its type; texts of some types mean nothing without.

    Examples
    --------
    >>> namespace = {"__name__": "theirs"}
    >>> exec(compile("def forward(x): return {}[x]", "net.py", "exec"), namespace)
    >>> try:
    ...     namespace["forward"]("k")
    ... except KeyError as error:
    ...     print(raised_by(error))
    KeyError: 'k' (net.py:1, in forward)
    """
    try:
        text = str(error)
    except Exception:
        text = ""
    text = _shortened(_EXPLANATIONS.split(text)[0].strip())
    if name or not text:
        text = f"{type(error).__name__}{': ' if text else ''}{text}"
    theirs = [
        (frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _OURS
    ]
    if not theirs:
        return text
    code, line = theirs[-1]
    return f"{text} ({Path(code.co_filename).name}:{line}, in {code.co_name})"


def _shortened(text: str, most: int = _LONGEST_PART) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _shown(value: object) -> str:
    """A value on one line; of arrays and tensors the type and shape."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and shape and dtype is not None:
        kind = str(dtype).removeprefix("torch.")
        return f"{type(value).__name__} {kind} {list(shape)}"
    try:
        text = repr(value)
    except Exception:  # it may be any object
        return f"an object of type {type(value).__name__}"
    return _shortened(" ".join(text.split()) if "\n" in text else text, _LONGEST_VALUE)


class SparsemendError(ValueError):
    """Bad input: says what was wrong, the value, what is allowed and what to do.

    Parameters
    ----------
    what
        The layer, argument or file at fault, and what is wrong with it.
    value
        The offending value, shown with ``repr``; leave out where there is none to show.
    allowed
        What would have been accepted.
    fix
        What the user can do about it.

    Examples
    --------
    >>> print(SparsemendError("sparsity is out of range", 1.5, "a fraction in [0, 1)"))
    sparsity is out of range: got 1.5; allowed: a fraction in [0, 1)
    """

    _NO_VALUE = object()

    def __init__(
        self, what: str, value: object = _NO_VALUE, allowed: str = "", fix: str = ""
    ) -> None:
        parts = [what if value is self._NO_VALUE else f"{what}: got {_shown(value)}"]
        if allowed:
            parts.append(f"allowed: {allowed}")
        if fix:
            parts.append(fix)
        parts = [_shortened(part) for part in parts]
        super().__init__(printable("; ".join(parts), keep="\n\t"))


class SparsemendWarning(UserWarning):
    """Something the user should know about a layer; work goes on."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message), keep="\n\t"))
