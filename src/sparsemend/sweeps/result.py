"""The result of a sweep: its records, and the transitions they show."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sparsemend.boundary import public
from sparsemend.errors import SparsemendError
from sparsemend.files import atomic_write, csv_text
from sparsemend.sweeps import text, transition
from sparsemend.sweeps.plan import Estimate
from sparsemend.sweeps.records import Cell, Failure, Lead, Measure, Record, Settings, Transition
from sparsemend.sweeps.store import read_store

MEASURES: tuple[Measure, ...] = ("accuracy", "agreement")


@dataclass(frozen=True)
class SweepResult:
    """The cells of a sweep.

    Attributes
    ----------
    records
        What every finished cell gave.
    failures
        Cells that were tried and have no result.
    pending
        Cells that a dry run would have computed.
    estimate
        Of a dry run: how long they would take.
    computed
        How many of the records are new; the others were in the store.
    """

    records: tuple[Record, ...]
    failures: tuple[Failure, ...] = ()
    pending: tuple[Cell, ...] = ()
    estimate: Estimate | None = None
    computed: int = 0

    @classmethod
    @public
    def load(cls, path: str | os.PathLike[str], **settings: Any) -> SweepResult:
        """Read every finished cell of a store, also while a sweep is writing to it.

        Parameters
        ----------
        path
            The store.
        settings
            Attributes of :class:`Settings`, such as ``scope="sequential"``, that the cells must
            have; needed where a store holds cells of several.

        Raises
        ------
        SparsemendError
            If it is no store, or holds several results for one cell.
        """
        known = [field.name for field in fields(Settings)]
        for name in settings:
            if name not in known:
                raise SparsemendError("cells have no such setting", name, ", ".join(known))
        with read_store(Path(path)) as store:
            records = [
                record
                for task, record in store.records().items()
                if all(getattr(task.settings, name) == v for name, v in settings.items())
            ]
            failures = [
                failure
                for task, failure in store.failures().items()
                if all(getattr(task.settings, name) == v for name, v in settings.items())
            ]
        _check_unambiguous(records, Path(path))
        return cls(tuple(records), tuple(failures))

    @public
    def transitions(self, measure: Measure | None = None) -> tuple[Transition, ...]:
        """Where recovery is lost, by accuracy (where there are labels) and by agreement.

        Parameters
        ----------
        measure
            Only this one.
        """
        chosen = MEASURES if measure is None else (measure,)
        return tuple(t for m in chosen for t in transition.transitions(self.records, m))

    @public
    def leads(self, measure: Measure | None = None) -> tuple[Lead, ...]:
        """Which rule recovers most on which sparsities, where several were swept."""
        chosen = MEASURES if measure is None else (measure,)
        return tuple(lead for m in chosen for lead in transition.leads(self.records, m))

    @public
    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row per record, atomically."""
        write_csv(path, [record_row(record) for record in self.records])

    def __str__(self) -> str:
        leads = self.leads("accuracy") or self.leads("agreement")
        return text.describe(self.records, self.transitions(), leads, self.failures)


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows atomically; what a row lacks is empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[row.get(name) for name in names] for row in rows]
    content = csv_text([names, *cells], newline="\r\n")
    atomic_write(Path(path), lambda file: file.write(content.encode()))


def record_row(record: Record) -> dict[str, Any]:
    """A record as one flat row of plain values; None is an empty field of a CSV."""
    settings = {} if record.settings is None else asdict(record.settings)
    settings |= {name: json.dumps(v) for name, v in settings.items() if isinstance(v, tuple)}
    results = {
        field.name: getattr(record, field.name)
        for field in fields(Record)
        if field.name not in ("cell", "versions", "densities", "settings")
    }
    return {
        **asdict(record.cell),
        **results,
        "recovery_accuracy": record.recovery("accuracy"),
        "recovery_agreement": record.recovery("agreement"),
        **settings,
        **{f"version_{name}": value for name, value in record.versions.items()},
        "densities": json.dumps(dict(record.densities)),
    }


def _check_unambiguous(records: Iterable[Record], path: Path) -> None:
    seen: dict[Cell, Record] = {}
    for record in records:
        other = seen.setdefault(record.cell, record)
        if other is record:
            continue
        different = [
            field.name
            for field in fields(Settings)
            if getattr(record.settings, field.name) != getattr(other.settings, field.name)
        ]
        name = different[0]
        raise SparsemendError(
            f"store {str(path)!r} holds several results for {record.cell}",
            ", ".join(different),
            f"one value of {name}: {getattr(other.settings, name)!r} or "
            f"{getattr(record.settings, name)!r}",
            f"choose, as in load(path, {name}={getattr(other.settings, name)!r})",
        )
