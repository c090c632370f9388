"""The one error type of the library, and the one warning type."""

from __future__ import annotations


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
        super().__init__("; ".join(parts))


class SparsemendWarning(UserWarning):
    """Something the user should know about a layer; work goes on."""
