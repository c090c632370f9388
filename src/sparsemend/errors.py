"""The one error type of the library, and the one warning type."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    """
    nearest = difflib.get_close_matches(str(written), list(names), n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else ""


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
        parts = [what if value is self._NO_VALUE else f"{what}: got {value!r}"]
        if allowed:
            parts.append(f"allowed: {allowed}")
        if fix:
            parts.append(fix)
        super().__init__(printable("; ".join(parts), keep="\n\t"))


class SparsemendWarning(UserWarning):
    """Something the user should know about a layer; work goes on."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message), keep="\n\t"))
