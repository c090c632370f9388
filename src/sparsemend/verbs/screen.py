"""What a person wants to know of a compression at a glance: a few labelled lines, and as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sparsemend.errors import printable
from sparsemend.patterns import FREE, patterned
from sparsemend.timing.engines import SPARSE

Lines = Sequence[tuple[str, str]]


def first_screen(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and text of every line.

    Parameters
    ----------
    values
        What ``CompressionResult.to_dict`` gives, and where they are known ``model``,
        ``top1_dense``, ``top1_repaired``, ``tested`` (inputs they were measured on), ``out``,
        ``bytes`` (of that file), ``report``, ``timing`` and ``next``.
    """
    known = [
        ("network", values.get("model")),
        ("target", (values.get("target") or {}).get("text")),
        ("sparsity", _sparsity(values)),
        ("top-1", _accuracy(values)),
        ("agreement", _agreement(values)),
        ("multiplications", _multiplications(values)),
        ("runtime", _runtime(values)),
        ("done", _done(values)),
        ("time", span(sum(values["seconds"].values()))),
        ("file", _file(values)),
        ("report", values.get("report")),
        ("next", values.get("next")),
    ]
    return [(label, printable(str(text))) for label, text in known if text]


def as_text(lines: Lines) -> str:
    """Lines with their labels in one column."""
    width = max((len(label) for label, _ in lines), default=0)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)


def as_html(lines: Lines, densities: Mapping[str, float]) -> str:
    """A small table, and the density of every layer as a bar, for notebooks."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(label)}</th>'
        f'<td style="text-align:left">{escape(text)}</td></tr>'
        for label, text in lines
    )
    return f'<table class="sparsemend">{rows}</table>{_bars(densities)}'


def span(seconds: float) -> str:
    """A time in words.

    Examples
    --------
    >>> span(4.2), span(600), span(5400), span(90000)
    ('4 s', '10 min', '1.5 h', '25 h')
    """
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"


def _sparsity(values: Mapping[str, Any]) -> str:
    layers = len(values["counts"])
    text = (
        f"{_percent(values['sparsity'])} of {values['total']:,} weights in "
        f"{layers} layer{'' if layers == 1 else 's'} are zero"
    )
    empty = sum(not kept for kept in values["counts"].values())
    if empty:
        text += f", {empty} of which {'has' if empty == 1 else 'have'} none left"
    coverage = values.get("coverage")
    if coverage and coverage["covered"] < coverage["matrix"]:
        removed = values["total"] - values["kept"]
        text += f", {_percent(removed / coverage['matrix'])} of all that multiply"
    return text


def _accuracy(values: Mapping[str, Any]) -> str | None:
    dense, repaired = values.get("top1_dense"), values.get("top1_repaired")
    if dense is None or repaired is None:
        return None
    text = f"{_percent(dense)} → {_percent(repaired)}"
    tested = values.get("tested")
    return text if tested is None else f"{text} on {tested:,} test inputs"


def _agreement(values: Mapping[str, Any]) -> str:
    where = "held-out" if values["heldout"] else "calibration"
    return f"{values['judged']} ({where} inputs)"


def _multiplications(values: Mapping[str, Any]) -> str | None:
    dense, share = values.get("multiplications"), values.get("kept_multiplications")
    if not dense or share is None:
        return None
    total = sum(dense.values())
    sparse = f"{_short(share * total)} an input ({_percent(share)})"
    return f"{_short(total)} → {sparse}, where zeros are skipped"


def _runtime(values: Mapping[str, Any]) -> str | None:
    milliseconds = ((values.get("timing") or {}).get("milliseconds") or {}).get(SPARSE)
    return None if milliseconds is None else f"{milliseconds:.3g} ms an input on one thread"


def _done(values: Mapping[str, Any]) -> str:
    mask = f"mask {values['mask']}{patterned(values.get('pattern', FREE.name))}"
    return f"rule {values['rule']}, {mask}, repair {values['repair']}"


def _file(values: Mapping[str, Any]) -> str | None:
    out, size = values.get("out"), values.get("bytes")
    return out if not out or size is None else f"{out}, {_short(size)}B with the zeros"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _short(value: float) -> str:
    """A large number with three digits: ``1.23 M``."""
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.5 or unit == "T":
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def _bars(densities: Mapping[str, float]) -> str:
    """Density of every layer, in execution order."""
    if not densities:
        return ""
    step, height = 7, 60
    top = max(densities.values()) or 1.0
    bars = "".join(
        f'<rect x="{step * index}" y="{height * (1 - density / top):.1f}" width="{step - 1}" '
        f'height="{height * density / top:.1f}" fill="currentColor">'
        f"<title>{escape(printable(name))}: {_percent(density)} kept</title></rect>"
        for index, (name, density) in enumerate(densities.items())
    )
    width = step * len(densities)
    return (
        f'<svg width="{width}" height="{height}" role="img" '
        f'aria-label="Share of weights kept in every layer">{bars}</svg>'
        f"<div>share of weights kept, first layer to last (highest {_percent(top)})</div>"
    )
