"""The public report: from results to a page and to figures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparsemend.allocation import Allocation
from sparsemend.boundary import public
from sparsemend.diagnosis import Diagnosis
from sparsemend.errors import SparsemendError, printable
from sparsemend.files import atomic_write
from sparsemend.patterns import patterned
from sparsemend.reports.compare import other_rules, rules_of_shapes
from sparsemend.reports.contents import Compression, Contents
from sparsemend.reports.drawing.figure import Figure
from sparsemend.reports.drawing.images import write_images
from sparsemend.reports.drawing.page import page
from sparsemend.reports.drawing.text import escape
from sparsemend.reports.figures.registry import FIGURES
from sparsemend.reports.words import facts_of, sentences
from sparsemend.sweeps import AblationResult, Record, SweepResult
from sparsemend.verbs.compression import CompressionResult

_NO_PAGES = (".pdf", ".png", ".svg", ".jpg", ".csv", ".json")
Source = Diagnosis | CompressionResult | Compression | Allocation | SweepResult | AblationResult


@dataclass(frozen=True)
class Report:
    """Figures and the plain words that sum them up.

    Attributes
    ----------
    title, subtitle
        Heading of the page and the line beneath the summary.
    summary
        Plain sentences, the first of them the headline.
    figures
        In the order of the page.
    facts
        Labelled lines on top.
    """

    title: str
    subtitle: str
    summary: tuple[str, ...]
    figures: tuple[Figure, ...]
    facts: tuple[tuple[str, str], ...] = ()

    def html(self) -> str:
        """One page that needs no network and no other file."""
        return page(self.title, self.subtitle, self.summary, self.figures, self.facts)

    def _repr_html_(self) -> str:
        """What notebooks show: the page, in a frame of its own."""
        return (
            f'<iframe srcdoc="{escape(self.html())}" width="100%" height="640" '
            f'style="border:0" title="{escape(self.title)}"></iframe>'
        )

    @public
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page; the file appears whole or not at all.

        Raises
        ------
        SparsemendError
            If it cannot be written, or the ending is that of a figure or a table.
        """
        if Path(path).suffix.lower() in _NO_PAGES:
            raise SparsemendError(
                "a report is a page of HTML",
                str(path),
                "a path that ends in .html",
                "save_figures writes the figures and their numbers",
            )
        content = self.html().encode()
        atomic_write(Path(path), lambda file: file.write(content))

    @public
    def save_figures(self, folder: str | os.PathLike[str], kind: str = "svg") -> tuple[Path, ...]:
        """Write every figure on white as a file of its own, for papers, or its numbers.

        Parameters
        ----------
        folder
            Where to; made if missing.
        kind
            ``"svg"``, ``"png"`` with the extra ``figures``, or ``"csv"`` for the numbers.

        Returns
        -------
        tuple of Path
            The files, in the order of the page.

        Raises
        ------
        SparsemendError
            For another kind, a folder that cannot be written, or PNG without the extra.
        """
        return write_images(self.figures, Path(folder), kind)

    def __str__(self) -> str:
        return "\n".join(map(printable, self.summary))


@public
def report(
    *sources: Source,
    title: str | None = None,
    named: Mapping[str, Source] | None = None,
) -> Report:
    """Draw results and say in plain words what they show.

    Parameters
    ----------
    sources
        One or more results: diagnoses, one compression, allocations of one network at one
        sparsity, sweeps and ablations.
    title
        Heading; by default says what is shown.
    named
        Further results with a name each, which figures of diagnoses then carry.

    Returns
    -------
    Report
        Save it with ``report.save("report.html")`` and ``report.save_figures("figures")``.

    Raises
    ------
    SparsemendError
        If there is nothing to show, or a source is something else.

    Examples
    --------
    >>> sm.report(diagnosis).save("diagnosis.html")
    """
    contents = Contents()
    for name, source in [*(("", s) for s in sources), *(named or {}).items()]:
        contents = _add(contents, name, source)
    figures = tuple(figure for draw in FIGURES.values() for figure in draw(contents))
    if not figures:
        raise SparsemendError("a report needs at least one result with something to show")
    return Report(
        title=title or _title(contents),
        subtitle=_subtitle(contents),
        summary=tuple(sentences(contents)) or (figures[0].title,),
        figures=figures,
        facts=facts_of(contents),
    )


def _add(contents: Contents, name: str, source: Source) -> Contents:
    match source:
        case Diagnosis():
            return _with_diagnosis(contents, name, source)
        case CompressionResult():
            contents = _with_compression(contents, Compression.of(source))
            others = other_rules(
                source.model,
                source.allocation,
                rules_of_shapes(),
                layers=source.layers,
                target=source.target,
                multiplications=source.multiplications,
            )
            contents = replace(contents, allocations=(*contents.allocations, *others))
            if source.diagnosis is not None:
                contents = _with_diagnosis(contents, name, source.diagnosis)
            return contents
        case Compression():
            return _with_compression(contents, source)
        case Allocation():
            return replace(contents, allocations=(*contents.allocations, source))
        case AblationResult():
            return _add(contents, name, source.sweep)
        case SweepResult():
            return replace(
                contents,
                records=(*contents.records, *source.records),
                transitions=(*contents.transitions, *source.transitions()),
                leads=(*contents.leads, *source.leads()),
            )
    raise SparsemendError(
        "a report cannot show this",
        type(source).__name__,
        "a Diagnosis, CompressionResult, Allocation, SweepResult or AblationResult",
    )


def _with_diagnosis(contents: Contents, name: str, diagnosis: Diagnosis) -> Contents:
    name = name or (f"repair {diagnosis.repair}" if contents.diagnoses else "")
    while name in contents.diagnoses:
        name += " (again)"
    return replace(contents, diagnoses={**contents.diagnoses, name: diagnosis})


def _with_compression(contents: Contents, compression: Compression) -> Contents:
    if contents.compression is not None:
        raise SparsemendError("a report shows one compression", fix="make one report for each")
    return replace(contents, compression=compression)


def _title(contents: Contents) -> str:
    parts = []
    if contents.records:
        parts.append(
            "Sweep of " + ", ".join(dict.fromkeys(r.cell.network for r in contents.records))
        )
    if contents.compression is not None:
        parts.append("Compression")
    if contents.diagnoses:
        parts.append("Diagnosis")
    return " · ".join(parts) or "Allocation"


def _subtitle(contents: Contents) -> str:
    parts = []
    if contents.records:
        seeds = sorted({record.cell.seed for record in contents.records})
        parts.append(f"{len(contents.records):,} cells, {_seeds(seeds)}")
        parts += _versions(contents.records)
    for name, diagnosis in contents.diagnoses.items():
        parts.append(
            f"{name or 'diagnosis'}: repair {diagnosis.repair}, mask {diagnosis.mask}"
            f"{patterned(diagnosis.pattern)}, "
            f"{diagnosis.weighting} weighting, {diagnosis.inputs:,} calibration inputs"
        )
    return " · ".join(parts)


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"calibration seeds {seeds[0]} to {seeds[-1]}"
    return f"calibration seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _versions(records: Sequence[Record]) -> list[str]:
    found = sorted({f"{name} {v}" for record in records for name, v in record.versions.items()})
    return [", ".join(found)] if found else []
