"""Colours by role, for light and dark ground; told apart with any common colour blindness.

A drawing names roles only. A page gives them as CSS variables, so that they follow the reader's
theme; a file for a paper gets the light values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sparsemend.allocation import RULES
from sparsemend.recipe import AUTO

Paint = Callable[[str], str]

# Steps of the diverging scale; its middle step stands for the neutral value exactly.
STEPS = 41

# Okabe and Ito's set, darkened for text on white.
_LIGHT = {
    "ground": "#ffffff",
    "ink": "#16202c",
    "mute": "#566270",
    "grid": "#e3e8ee",
    "axis": "#9aa6b2",
    "band": "#eef2f6",
    "blue": "#0068a8",
    "orange": "#c97a00",
    "green": "#00815f",
    "red": "#c8500a",
    "purple": "#a84a83",
    "sky": "#2b93c9",
    "grey": "#7a8591",
    "brown": "#84643c",
    "yellow": "#978a00",
}
_DARK = {
    "ground": "#14181d",
    "ink": "#e8edf2",
    "mute": "#a3afbb",
    "grid": "#2b333c",
    "axis": "#5d6975",
    "band": "#1d232a",
    "blue": "#58a9ea",
    "orange": "#f0a92e",
    "green": "#35bf93",
    "red": "#f47b3d",
    "purple": "#dd85b9",
    "sky": "#86cdf3",
    "grey": "#97a3ae",
    "brown": "#c5a172",
    "yellow": "#e3d84a",
}
_DIVERGING_LIGHT = ("#0b4f8a", "#4f97c9", "#f4f4f2", "#e58c4f", "#9c3206")
_DIVERGING_DARK = ("#5db4f5", "#336f9e", "#2a3037", "#a85a28", "#ff9a57")

# For series, in the order in which those without a colour of their own take them.
_SERIES = ("ink", "blue", "orange", "red", "green", "purple", "grey", "brown", "sky", "yellow")
# Rules have theirs in their records; the search among them is no rule.
_AUTO_COLOUR = "ink"
_SHAPES = ("circle", "square", "diamond", "triangle")


def _diverging(anchors: tuple[str, ...]) -> dict[str, str]:
    """STEPS colours d0 … d40 between the anchors."""
    colours = [tuple(int(a[i : i + 2], 16) for i in (1, 3, 5)) for a in anchors]
    found = {}
    for step in range(STEPS):
        place = step / (STEPS - 1) * (len(colours) - 1)
        left = min(int(place), len(colours) - 2)
        share = place - left
        mixed = (
            round(a + share * (b - a))
            for a, b in zip(colours[left], colours[left + 1], strict=True)
        )
        found[f"d{step}"] = "#" + "".join(f"{part:02x}" for part in mixed)
    return found


LIGHT: Mapping[str, str] = {**_LIGHT, **_diverging(_DIVERGING_LIGHT)}
DARK: Mapping[str, str] = {**_DARK, **_diverging(_DIVERGING_DARK)}


def light(role: str) -> str:
    """The colour of a role on paper."""
    return role if role == "none" else LIGHT[role]


def variable(role: str) -> str:
    """The role as a CSS variable of the page."""
    return role if role == "none" else f"var(--{role})"


def css_variables() -> str:
    """Style rules that define the variables: light, and dark on screens that prefer it."""

    def block(colours: Mapping[str, str]) -> str:
        return ":root{" + "".join(f"--{role}:{c};" for role, c in colours.items()) + "}"

    return f"{block(LIGHT)}\n@media screen and (prefers-color-scheme:dark){{{block(DARK)}}}\n"


def diverging_step(value: float, top: float) -> str:
    """The role of a ratio: to 0 at one end, 1 in the middle, from ``top`` on at the other end."""
    share = max(value, 0.0) / 2 if value <= 1 else 0.5 + min((value - 1) / (top - 1), 1) / 2
    return f"d{round(share * (STEPS - 1))}"


def series_style(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Name → (colour, shape): known rules keep theirs, others take what is left, in order."""
    names = list(dict.fromkeys(names))
    colours = {AUTO: _AUTO_COLOUR, **{name: rule.colour for name, rule in RULES.items()}}
    colours = {name: c for name in names if (c := colours.get(name)) in _SERIES}
    free = [c for c in _SERIES if c not in colours.values()] or [_SERIES[-1]]
    others = (name for name in names if name not in colours)
    colours |= {name: free[i % len(free)] for i, name in enumerate(others)}
    return {n: (colours[n], _SHAPES[i % len(_SHAPES)]) for i, n in enumerate(names)}
