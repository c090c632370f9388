"""The results of sweeps in one SQLite file, written by one driver at a time.

A record is written in one transaction when its cell is finished, so a driver that is killed at
any moment leaves every finished cell and nothing of the others.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sparsemend.errors import SparsemendError
from sparsemend.sweeps.records import Cell, Failure, Record, Settings, Task

SCHEMA_VERSION = 2
_APPLICATION = 0x536D5377  # marks the file as ours ("SmSw")
_WAIT = 30.0  # seconds that a reader may wait for a writer's transaction

CELL_COLUMNS = tuple(field.name for field in fields(Cell))
SETTINGS_COLUMNS = tuple(field.name for field in fields(Settings))
_KEY = (*CELL_COLUMNS, *SETTINGS_COLUMNS)
_KEY_SQL = """
    network TEXT NOT NULL, rule TEXT NOT NULL, mask TEXT NOT NULL, repair TEXT NOT NULL,
    sparsity REAL NOT NULL, seed INTEGER NOT NULL, scope TEXT NOT NULL,
    calibration_size INTEGER NOT NULL, heldout_size INTEGER NOT NULL, test_size INTEGER NOT NULL,
    batch_size INTEGER NOT NULL, weights TEXT NOT NULL, inputs TEXT NOT NULL, test TEXT NOT NULL,
    budget TEXT NOT NULL
"""
_RESULT = (
    "achieved_sparsity", "top1_dense", "top1_pruned", "top1_repaired", "chance", "kl",
    "agreement", "seconds", "versions", "densities",
)  # fmt: skip
_SCHEMA = f"""
CREATE TABLE records (
    {_KEY_SQL},
    achieved_sparsity REAL NOT NULL, top1_dense REAL, top1_pruned REAL, top1_repaired REAL,
    chance REAL NOT NULL, kl REAL NOT NULL, agreement REAL NOT NULL, seconds REAL NOT NULL,
    versions TEXT NOT NULL, densities TEXT NOT NULL,
    finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    UNIQUE ({", ".join(_KEY)})
);
CREATE TABLE failures (
    {_KEY_SQL},
    error TEXT NOT NULL,
    UNIQUE ({", ".join(_KEY)})
);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {SCHEMA_VERSION};
"""


class Store:
    """An open store; made by :func:`open_store` and :func:`read_store`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, outcome: Record | Failure) -> None:
        """Write a finished cell, or why it has no result, in one transaction.

        A failure is replaced by what the cell gives when it is tried again; a record is final.
        """
        if outcome.settings is None:
            raise ValueError("only outcomes with settings can be stored")
        key = (*astuple(outcome.cell), *astuple(outcome.settings))
        with self._transaction():
            where = " AND ".join(f"{column} = ?" for column in _KEY)
            self._connection.execute(f"DELETE FROM failures WHERE {where}", key)
            if isinstance(outcome, Failure):
                self._insert("failures", (*_KEY, "error"), (*key, outcome.error))
            else:
                values = [getattr(outcome, column) for column in _RESULT[:-2]]
                texts = [json.dumps(dict(outcome.versions)), json.dumps(dict(outcome.densities))]
                self._insert("records", (*_KEY, *_RESULT), (*key, *values, *texts))

    def records(self) -> dict[Task, Record]:
        """Every finished cell, in the order in which they were finished."""
        rows = self._connection.execute(
            f"SELECT {', '.join((*_KEY, *_RESULT))} FROM records ORDER BY rowid"
        )
        return {record_task(record): record for record in map(_record, rows)}

    def failures(self) -> dict[Task, Failure]:
        """Every cell that was tried and has no result."""
        rows = self._connection.execute(
            f"SELECT {', '.join((*_KEY, 'error'))} FROM failures ORDER BY rowid"
        )
        found = {}
        for row in rows:
            task = _task(row)
            found[task] = Failure(task.cell, row[-1], task.settings)
        return found

    def _insert(self, table: str, columns: tuple[str, ...], values: tuple[Any, ...]) -> None:
        marks = ", ".join("?" * len(columns))
        self._connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", values
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


@contextmanager
def open_store(path: Path | None) -> Iterator[Store]:
    """Open a store for writing, made where it is missing; None keeps it in memory.

    Raises
    ------
    SparsemendError
        If the file is no store, of a later version, cannot be written, or another sweep is
        writing to it.
    """
    if path is None:
        with _connected(":memory:") as connection:
            yield Store(connection)
        return
    with _locked(path), _connected(str(path), path) as connection:
        yield Store(connection)


@contextmanager
def read_store(path: Path) -> Iterator[Store]:
    """Open a store for reading, also while a sweep is writing to it.

    Raises
    ------
    SparsemendError
        If there is no such file, or it is no store.
    """
    if not path.is_file():
        raise SparsemendError("there is no store of a sweep", str(path))
    # Not mode=ro: what a killed driver left of a transaction is rolled back by the next to open.
    uri = f"{path.resolve().as_uri()}?mode=rw"
    with _connected(uri, path, writable=False) as connection:
        yield Store(connection)


@contextmanager
def _connected(
    name: str, path: Path | None = None, *, writable: bool = True
) -> Iterator[sqlite3.Connection]:
    connection = None
    try:
        connection = sqlite3.connect(name, timeout=_WAIT, isolation_level=None, uri=not writable)
        if not writable:
            connection.execute("PRAGMA query_only = ON")
        _check_schema(connection, path, writable)
        yield connection
    except sqlite3.Error as error:
        raise SparsemendError(
            f"the store cannot be used ({error})", str(path), "a file made by a sweep"
        ) from error
    finally:
        if connection is not None:
            connection.close()


def _check_schema(connection: sqlite3.Connection, path: Path | None, writable: bool) -> None:
    def pragma(name: str) -> int:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

    application, version = pragma("application_id"), pragma("user_version")
    empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if empty and application == 0 and writable:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
    elif application != _APPLICATION:
        raise SparsemendError(
            "this file is no store of a sweep", str(path), fix="choose another file"
        )
    elif version != SCHEMA_VERSION:
        raise SparsemendError(
            f"store {str(path)!r} has another version",
            version,
            str(SCHEMA_VERSION),
            "use the sparsemend that made it, or another store",
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let no second driver in; the lock goes with the process, however it ends."""
    if not path.parent.is_dir() or path.is_dir():
        raise SparsemendError(
            "the store cannot be there", str(path), "a file in a folder that exists"
        )
    lock_path = path.with_name(f"{path.name}.lock")
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SparsemendError(
            "another sweep is writing to this store",
            str(path),
            fix="wait until it has ended, or choose another store",
        ) from None
    except OSError as error:
        raise SparsemendError(
            f"cannot write there ({error.strerror})", str(path), fix="choose an existing folder"
        ) from error
    try:
        yield
    finally:
        lock_path.unlink(missing_ok=True)  # while it is held: a lock without a name locks nobody
        lock.release()


def record_task(record: Record) -> Task:
    """The cell and settings of a stored record."""
    assert record.settings is not None
    return Task(record.cell, record.settings)


def _task(row: tuple[Any, ...]) -> Task:
    split = len(CELL_COLUMNS)
    return Task(Cell(*row[:split]), Settings(*row[split : len(_KEY)]))


def _record(row: tuple[Any, ...]) -> Record:
    task = _task(row)
    results = dict(zip(_RESULT, row[len(_KEY) :], strict=True))
    texts = {name: json.loads(results.pop(name)) for name in ("versions", "densities")}
    return Record(task.cell, **results, **texts, settings=task.settings)
