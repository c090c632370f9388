import math
import re

import pytest

from sparsemend.allocation import RULES, Rule
from sparsemend.reports.drawing.palette import (
    DARK,
    LIGHT,
    STEPS,
    css_variables,
    diverging_step,
    light,
    series_style,
    variable,
)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    one, two = sorted((luminance(a), luminance(b)), reverse=True)
    return (one + 0.05) / (two + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_and_lines_can_be_read(theme):
    assert contrast(theme["ink"], theme["ground"]) > 7
    assert contrast(theme["mute"], theme["ground"]) > 4.5
    for role in ("blue", "orange", "green", "red", "purple", "sky", "grey", "brown", "yellow"):
        assert contrast(theme[role], theme["ground"]) > 3, role


def test_both_themes_have_the_same_roles():
    assert LIGHT.keys() == DARK.keys()
    assert css_variables().count("--ink:") == 2
    assert "prefers-color-scheme:dark" in css_variables()


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_the_scale_parts_at_its_middle(theme):
    contrasts = [contrast(theme[f"d{i}"], theme["ground"]) for i in range(STEPS)]
    middle = STEPS // 2
    assert contrasts[: middle + 1] == sorted(contrasts[: middle + 1], reverse=True)
    assert contrasts[middle:] == sorted(contrasts[middle:])


@pytest.mark.parametrize("top", [2.0, 3.5])
def test_steps(top):
    last = STEPS - 1
    assert diverging_step(0, top) == "d0"
    assert diverging_step(1, top) == f"d{last // 2}"
    assert diverging_step(top, top) == diverging_step(top + 1, top) == f"d{last}"
    steps = [int(diverging_step(top * k / 50, top)[1:]) for k in range(51)]
    assert steps == sorted(steps)


def test_paints():
    assert (light("none"), variable("none")) == ("none", "none")
    assert re.fullmatch("#[0-9a-f]{6}", light("blue"))
    assert variable("blue") == "var(--blue)"


def test_below_the_scale_is_its_end():
    assert diverging_step(-0.5, 2.0) == diverging_step(-math.inf, 2.0) == "d0"


def test_rules_keep_their_colour_and_others_get_one():
    style = series_style(["erk", "mine", "rr", "yours"])
    assert style["erk"][0] == series_style(["global", "erk"])["erk"][0]
    assert len({colour for colour, _ in style.values()}) == 4
    assert len({shape for _, shape in style.values()}) == 4
    many = series_style([f"rule {i}" for i in range(30)])
    assert all(colour in LIGHT for colour, _ in many.values())


def test_colours_are_those_of_the_records(monkeypatch):
    for name, rule in RULES.items():
        assert series_style(["x", name])[name][0] == rule.colour
    assert series_style(["x", "auto"])["auto"][0] == "ink"
    for colour in ("sky", "", "mauve", "ground"):
        monkeypatch.setitem(RULES, "mine", Rule("mine", len, needs="shapes", colour=colour))
        mine, other = (style[0] for style in series_style(["mine", "other"]).values())
        assert mine != other
        assert (mine == colour) == (colour == "sky")
