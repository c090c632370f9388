"""The results of sweeps in one SQLite file, written by one driver at a time.

A record is written in one transaction when its cell is finished, so a driver that is killed at
any moment leaves every finished cell and nothing of the others.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sparsemend.errors import SparsemendError
from sparsemend.files import cannot_write, check_target, regular_target
from sparsemend.sweeps import schema
from sparsemend.sweeps._locks import locked_file
from sparsemend.sweeps.records import Cell, Failure, Record, Settings, Task

_WAIT = 30.0  # seconds that a reader may wait for a writer's transaction


class Store:
    """An open store; made by :func:`open_store` and :func:`read_store`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._places: dict[Task, int] = {}

    def expect(self, tasks: Iterable[Task]) -> None:
        """Keep cells in this order, behind what is there, in whatever order they are finished."""
        last = max(
            self._connection.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()[0]
            for table in ("records", "failures")
        )
        self._places = {task: last + number for number, task in enumerate(tasks, 1)}

    def add(self, outcome: Record | Failure) -> None:
        """Write a finished cell, or why it has no result, in one transaction.

        A failure is replaced by what the cell gives when it is tried again; a record is final.
        """
        if outcome.settings is None:
            raise ValueError("only outcomes with settings can be stored")
        given = vars(outcome.cell) | vars(outcome.settings)
        key = tuple(column.write(given[column.name]) for column in schema.key_columns())
        table = "failures" if isinstance(outcome, Failure) else "records"
        result = schema.columns(type(outcome))
        values = [column.write(getattr(outcome, column.name)) for column in result]
        # IS, because a column may hold nothing.
        where = " AND ".join(f"{column.name} IS ?" for column in schema.key_columns())
        with schema.transaction(self._connection):
            self._connection.execute(f"DELETE FROM failures WHERE {where}", key)
            names = f"rowid, {_names(*schema.key_columns(), *result)}"
            place = self._places.get(Task(outcome.cell, outcome.settings))  # None for the next
            self._insert(table, names, (place, *key, *values))

    def records(self) -> dict[Task, Record]:
        """Every finished cell, in the order in which they were expected, or else finished."""
        return {task: Record(**vars(task), **rest) for task, rest in self._rows("records", Record)}

    def failures(self) -> dict[Task, Failure]:
        """Every cell that was tried and has no result."""
        rows = self._rows("failures", Failure)
        return {task: Failure(**vars(task), **rest) for task, rest in rows}

    def _insert(self, table: str, names: str, values: tuple[Any, ...]) -> None:
        marks = ", ".join("?" * len(values))
        self._connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)

    def _rows(self, table: str, kind: type) -> Iterator[tuple[Task, dict[str, Any]]]:
        """Cell and settings of every row, and the other fields of what it keeps."""
        cell, settings, result = map(schema.columns, (Cell, Settings, kind))
        names = _names(*cell, *settings, *result)
        for row in self._connection.execute(f"SELECT {names} FROM {table} ORDER BY rowid"):
            split, end = len(cell), len(cell) + len(settings)
            given = zip(settings, row[split:end], strict=True)
            own = Settings(*(column.read(value) for column, value in given))
            named = zip(cell, row[:split], strict=True)
            task = Task(Cell(*(column.read(value) for column, value in named)), own)
            kept = zip(result, row[end:], strict=True)
            yield task, {column.name: column.read(value) for column, value in kept}


def _names(*columns: schema.Column) -> str:
    return ", ".join(column.name for column in columns)


@contextmanager
def open_store(path: Path | None) -> Iterator[Store]:
    """Open a store for writing, made where it is missing; None keeps it in memory.

    A store of an earlier version becomes one of today's.

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
    with _locked(path) as target, _connected(str(target), path) as connection:
        yield Store(connection)


@contextmanager
def read_store(path: Path) -> Iterator[Store]:
    """Open a store for reading, also while a sweep is writing to it; the file stays as it is.

    Of a store of an earlier version, what it held when it was opened.

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
        version = _version(connection, path, writable)
        if version != schema.SCHEMA_VERSION:
            if not writable:
                connection = _in_memory(connection)
            schema.migrate(connection, version)
        yield connection
    except sqlite3.Error as error:
        if path is not None and getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            raise cannot_write(path, OSError(errno.ENOSPC, str(error))) from error
        raise SparsemendError(
            f"the store cannot be used ({error})", str(path), "a file made by a sweep"
        ) from error
    finally:
        if connection is not None:
            connection.close()


def _version(connection: sqlite3.Connection, path: Path | None, writable: bool) -> int:
    """The version of a store, made where the file is empty; refuses what is none of ours."""

    def pragma(name: str) -> int:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

    application, version = pragma("application_id"), pragma("user_version")
    empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if empty and application == 0 and writable:
        schema.create(connection)
        return schema.SCHEMA_VERSION
    if application != schema.APPLICATION:
        raise SparsemendError(
            "this file is no store of a sweep", str(path), fix="choose another file"
        )
    if not schema.readable(version):
        raise SparsemendError(
            f"store {str(path)!r} has another version",
            version,
            str(schema.SCHEMA_VERSION),
            "use the sparsemend that made it, or another store",
        )
    return version


def _in_memory(connection: sqlite3.Connection) -> sqlite3.Connection:
    """A copy of a store as it is now, and the end of the connection to it."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    connection.backup(copy)
    connection.close()
    return copy


@contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """Let no second driver in, whatever name it has for the store; yields the file itself.

    The lock goes with the process, however it ends. A file that was made for nothing is removed.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise SparsemendError(
            "the store cannot be there", str(path), "a file in a folder that exists"
        )
    check_target(path)  # where nothing can be written, a lock would only seem to be taken
    with ExitStack() as locks:
        try:
            target, present = regular_target(path)
            locks.enter_context(_named_lock(target, path))
            free = locks.enter_context(locked_file(target))
        except OSError as error:
            raise cannot_write(path, error) from error
        if not free:
            raise _busy(path)
        if present is None:
            locks.callback(_remove_empty, target)
        yield target


def _remove_empty(file: Path) -> None:
    with suppress(OSError):
        if file.stat().st_size == 0:
            file.unlink()


@contextmanager
def _named_lock(target: Path, path: Path) -> Iterator[None]:
    """The lock beside the file, which also holds for other machines."""
    lock_path = target.with_name(f"{target.name}.lock")
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _busy(path) from None
    try:
        yield
    finally:
        lock_path.unlink(missing_ok=True)  # while it is held: a lock without a name locks nobody
        lock.release()


def _busy(path: Path) -> SparsemendError:
    return SparsemendError(
        "another sweep is writing to this store",
        str(path),
        fix="wait until it has ended, or choose another store",
    )
