"""The tables of a store, from the dataclasses that it keeps.

A field is a column of its name and type; mappings and tuples are kept as JSON. Cell and
settings are the key of both tables. A new field is a new column, and needs an entry in
``migrations``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from sparsemend.files import parse_json
from sparsemend.sweeps.migrations import MIGRATIONS
from sparsemend.sweeps.records import Cell, Failure, Record, Settings

SCHEMA_VERSION = 1 + max(MIGRATIONS)
APPLICATION = 0x536D5377  # marks the file as ours ("SmSw")

_SQL = {str: "TEXT", int: "INTEGER", bool: "INTEGER", float: "REAL", Mapping: "TEXT", tuple: "TEXT"}
# Type of a column → Python's types of the values in it.
_KEPT = {"TEXT": (str,), "INTEGER": (int,), "REAL": (float, int)}
# Kinds of values that are kept as JSON → what makes one of what was read, and the reverse.
_JSON = {Mapping: dict, tuple: tuple}
_FINISHED = "finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))"


@dataclass(frozen=True)
class Column:
    """A column of a table, and the field that it keeps."""

    name: str
    type: str
    optional: bool
    json: Callable[[Any], Any] | None = None
    flag: bool = False

    @property
    def sql(self) -> str:
        return f"{self.name} {self.type}{'' if self.optional else ' NOT NULL'}"

    def write(self, value: Any) -> Any:
        """What SQLite keeps of a field's value."""
        return json.dumps(self.json(value)) if self.json else value

    def read(self, kept: Any) -> Any:
        """Inverse of :meth:`write`."""
        if kept is None and self.optional:
            return None
        if type(kept) not in _KEPT[self.type]:  # SQLite keeps anything in any column
            raise sqlite3.DataError(f"column {self.name} holds {kept!r}, no {self.type}")
        if self.flag:
            return bool(kept)
        if not self.json:
            return kept
        try:
            return self.json(parse_json(kept))
        except (ValueError, TypeError) as error:
            raise sqlite3.DataError(f"column {self.name} holds no JSON: {error}") from error


def columns(kind: type) -> tuple[Column, ...]:
    """Columns of a dataclass, by the annotations of its fields; cell and settings are left out.

    Raises
    ------
    TypeError
        If there is no column for such a field.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    return tuple(_column(name, hints[name]) for name in names if name not in ("cell", "settings"))


def _column(name: str, hint: Any) -> Column:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = [get_origin(part) or part for part in parts if part is not NoneType]
    if len(kinds) != 1 or kinds[0] not in _SQL:
        raise TypeError(f"no column for field {name!r} of type {hint}")
    kind, optional = kinds[0], NoneType in parts
    return Column(name, _SQL[kind], optional, json=_JSON.get(kind), flag=kind is bool)


def key_columns() -> tuple[Column, ...]:
    """What tells cells apart: the cell, then the settings."""
    return (*columns(Cell), *columns(Settings))


def tables() -> dict[str, str]:
    """Table → the statement that makes it."""
    keys = key_columns()
    contents = {
        "records": [column.sql for column in (*keys, *columns(Record))] + [_FINISHED],
        "failures": [column.sql for column in (*keys, *columns(Failure))],
    }
    return {name: f"CREATE TABLE {name} ({', '.join(parts)})" for name, parts in contents.items()}


def _index(table: str) -> str:
    """The statement that lets every key into a table once."""
    # To SQLite, nothing differs from nothing: without a value, the cell of a target would be new.
    keys = (f"ifnull({c.name}, '')" if c.optional else c.name for c in key_columns())
    return f"CREATE UNIQUE INDEX {table}_key ON {table} ({', '.join(keys)})"


def readable(version: int) -> bool:
    """Whether a store of this version is one of today's, or can become one."""
    return version == SCHEMA_VERSION or version in MIGRATIONS


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of an empty store."""
    with transaction(connection):
        for name, statement in tables().items():
            connection.execute(statement)
            connection.execute(_index(name))
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a store of an earlier version to today's; all of it or nothing."""
    with transaction(connection):
        for step in range(version, SCHEMA_VERSION):
            MIGRATIONS[step](connection)
        for name, statement in tables().items():
            connection.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
            connection.execute(statement)
            # With the number of the row, which is the order of writing.
            info = connection.execute(f"PRAGMA table_info({name})").fetchall()
            copied = ", ".join(["rowid", *(row[1] for row in info)])
            connection.execute(f"INSERT INTO {name} ({copied}) SELECT {copied} FROM old_{name}")
            connection.execute(f"DROP TABLE old_{name}")  # and its indices
            connection.execute(_index(name))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Statements of which either all or none come about."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back where the disk is full
            connection.execute("ROLLBACK")
        raise
