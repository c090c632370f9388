"""One self-contained page: summary, figures, and every number behind them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib.resources import files

from sparsemend.reports.drawing.figure import Figure
from sparsemend.reports.drawing.layout import layout
from sparsemend.reports.drawing.palette import css_variables
from sparsemend.reports.drawing.svg import svg
from sparsemend.reports.drawing.text import escape, plural

# Drawings that are wider scroll on a phone instead of shrinking beyond legibility.
_WIDE = 600
# Those that are narrower keep their size: their text would grow with them.
_NARROW = 320
_LEAD = 4  # Sentences of the summary that are always shown.


def page(
    title: str,
    subtitle: str,
    summary: Sequence[str],
    figures: Sequence[Figure],
    facts: Sequence[tuple[str, str]] = (),
) -> str:
    """HTML that loads nothing: style and script are inside, and no other may run.

    Parameters
    ----------
    title, subtitle
        Heading of the page and the line beneath it.
    summary
        Plain sentences, the first of them the headline.
    figures
        In the order in which they are shown.
    facts
        Label and text of the lines on top.
    """
    static = files("sparsemend.reports.drawing") / "static"
    style = css_variables() + (static / "report.css").read_text(encoding="utf-8")
    script = (static / "report.js").read_text(encoding="utf-8")
    # Not even text that escaped its escaping could load or run anything.
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<p class="kicker"><b>{escape(title)}</b> {escape(subtitle)}</p>
{_facts(facts)}
{"".join(_summary(summary))}
{_contents(figures)}
</header>
<main>
{"".join(map(_section, figures))}
</main>
<div id="tip" hidden></div>
<p id="said" class="unseen" role="status" aria-live="polite"></p>
<script>{script}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def _summary(summary: Sequence[str]) -> Iterator[str]:
    for index, sentence in enumerate(summary):
        if not index:
            yield f"<h1>{escape(sentence)}</h1>"
            continue
        if index == 1:
            yield '<ul class="summary">'
        if index == _LEAD + 1 and len(summary) > _LEAD + 2:
            more = plural(len(summary) - index, "more finding")
            yield f'</ul><details class="more"><summary>{more}</summary><ul class="summary">'
        yield f"<li>{escape(sentence)}</li>"
    if len(summary) > 1:
        yield "</ul>"
    if len(summary) > _LEAD + 2:
        yield "</details>"


def _contents(figures: Sequence[Figure]) -> str:
    if len(figures) < 2:
        return ""
    links = "".join(f'<li><a href="#{escape(f.key)}">{escape(f.title)}</a></li>' for f in figures)
    return f'<nav aria-label="Figures"><ul>{links}</ul></nav>'


def _section(figure: Figure) -> str:
    key, title = escape(figure.key), escape(figure.title)
    plates = "".join(svg(plate) for plate in figure.plates)
    csv, rows = figure.table.csv(), plural(len(figure.table.rows), "row")
    many = " many" if figure.columns > 3 else ""
    widths = [layout(plate).width for plate in figure.plates]
    wide = " wide" if max(widths) > _WIDE else ""
    compact = " compact" if figure.compact or max(widths) < _NARROW else ""
    return f"""<section id="{key}" class="figure{compact}">
<h2 id="{key}-title">{title}</h2>
<p class="caption">{escape(figure.caption)}</p>
<div class="plates{many}{wide}">{plates}</div>
<div class="numbers">
<button type="button" class="copy" hidden aria-describedby="{key}-title">Copy as CSV</button>
<details><summary>Numbers as CSV ({rows})</summary>
<textarea readonly rows="12" spellcheck="false" aria-label="Numbers of: {title}">
{escape(csv)}</textarea></details>
</div>
</section>
"""
