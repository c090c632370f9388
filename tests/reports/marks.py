"""Looking into figures, pages and summaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import Any

from sparsemend.reports.drawing.figure import Figure, Group, Panel


def plain(words: Iterable[str]) -> str:
    """Sentences a line each, with ordinary spaces."""
    return "\n".join(words).replace("\u00a0", " ")


def marks(panel: Panel, kind: type | None = None) -> Iterator[Any]:
    """The marks of a panel, those in groups included."""
    for mark in panel.marks:
        inner = mark.marks if isinstance(mark, Group) else (mark,)
        yield from (m for m in inner if kind is None or isinstance(m, kind))


def panels(figure: Figure) -> list[Panel]:
    return [p for plate in figure.plates for row in plate.rows for p in row if p is not None]


def grouped(panel: Panel) -> dict[str, Group]:
    return {mark.tip: mark for mark in panel.marks if isinstance(mark, Group)}


class Page(HTMLParser):
    """The elements of a page, with attributes and the text of those asked for."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag not in {"meta", "link", "br", "img"}:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """Elements and the names of their attributes: what markup makes, and text must not."""
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]
