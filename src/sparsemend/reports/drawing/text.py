"""Numbers and names as people read them, and text that is safe in HTML and SVG."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Sequence

NBSP = "\u00a0"
# Neither HTML nor XML can hold these; a lone surrogate cannot even be encoded.
_IMPOSSIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(text: str) -> str:
    """Text as the content of an element or of a quoted attribute, in HTML and in SVG."""
    return html.escape(_IMPOSSIBLE.sub("\ufffd", text), quote=True)


def number(value: float | None, digits: int = 3) -> str:
    """To so many significant digits, without trailing zeros."""
    if value is None or math.isnan(value):
        return "not defined"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def percent(fraction: float | None, digits: int = 3) -> str:
    """A fraction in percent."""
    if fraction is None or math.isnan(fraction):
        return "not known"
    return f"{number(100 * fraction, digits)}{NBSP}%"


def tenths(fraction: float) -> str:
    """A fraction in percent to one decimal: what steps of 0.01 in sparsity can tell."""
    return f"{100 * fraction:.1f}"


def points(difference: float) -> str:
    """A difference of fractions in percentage points to one decimal, with its sign."""
    return f"{100 * difference:+.1f} points".replace("-", "−")


def listed(items: Sequence[str]) -> str:
    """a, b and c."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def plural(count: int, noun: str) -> str:
    """1 layer, 2 layers."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def numbered(key: str, index: int, count: int) -> str:
    """The key of one of several figures of a kind; plain where there is only one."""
    return key if count == 1 else f"{key}-{index + 1}"


def shorten(name: str, longest: int) -> str:
    """A name with its middle left out where it is longer."""
    if len(name) <= longest:
        return name
    end = longest * 2 // 3
    return f"{name[: longest - end - 1]}…{name[-end:]}"


def text_width(text: str, size: float) -> float:
    """About how wide text is in a sans-serif font of so many pixels."""
    return size * sum(map(_advance, text))


def _advance(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.0
    if character in "iljtf.,:;'|!()[] ":
        return 0.32
    if character in "mwMW%":
        return 0.88
    return 0.68 if character.isupper() else 0.57
