import html
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.reports.drawing.text import (
    escape,
    listed,
    number,
    numbered,
    percent,
    plural,
    points,
    shorten,
    tenths,
    text_width,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1, "1"), (0.123456, "0.123"), (12.3456, "12.3"), (1234.5, "1234"),
        (100, "100"), (0.5, "0.5"), (-0.25, "−0.25"), (1e-7, "1.00e-07"), (3e8, "3.00e+08"),
        (math.nan, "not defined"), (None, "not defined"), (math.inf, "infinite"),
    ],
)  # fmt: skip
def test_number(value, text):
    assert number(value) == text


@given(st.floats(1e-3, 1e5))
def test_numbers_keep_three_digits(value):
    assert float(number(value)) == pytest.approx(value, rel=5.01e-3)


def test_percent():
    assert percent(0.934) == "93.4\u00a0%"
    assert percent(1.0) == "100\u00a0%"
    assert percent(0.93456, 4) == "93.46\u00a0%"
    assert percent(None) == "not known"
    assert tenths(0.9345) == "93.5"
    assert points(0.0123) == "+1.2 points"
    assert points(-0.0123) == "−1.2 points"


def test_words():
    assert [listed("abc"[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert (plural(1, "layer"), plural(1200, "layer")) == ("1 layer", "1,200 layers")
    assert (numbered("x", 0, 1), numbered("x", 1, 2)) == ("x", "x-2")


@given(st.text(max_size=60), st.integers(4, 40))
def test_shortening(name, longest):
    short = shorten(name, longest)
    assert len(short) <= max(longest, 0)
    assert short == name or "…" in short


@given(st.text(max_size=60))
def test_escaped_text_is_text(text):
    safe = escape(text)
    assert not set(safe) & set("<>\"'")
    safe.encode()  # no lone surrogate is left
    changed = html.unescape(safe)
    assert len(changed) == len(text)
    assert all(a in (b, "\ufffd") for a, b in zip(changed, text, strict=True))


def test_wide_letters_are_wide():
    assert text_width("層", 12) == 12
    assert text_width("ill", 12) < text_width("mmm", 12)
