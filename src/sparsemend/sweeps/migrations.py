"""How stores of earlier versions become stores of today's.

A change of what a store keeps is one more entry of :data:`MIGRATIONS`. Stores are opened with all
entries from their own version on, in one transaction: in the file when a sweep writes to it, in a
copy in memory when it is only read. Entries are history. They are written out in SQL and stay as
they are, whatever becomes of the dataclasses.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

Migration = Callable[[sqlite3.Connection], None]


def _add_budget(connection: sqlite3.Connection) -> None:
    """Version 1 did not keep the budget of a search: searched cells are computed again."""
    connection.execute("ALTER TABLE records ADD COLUMN budget TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE failures ADD COLUMN budget TEXT NOT NULL DEFAULT ''")


def _add_diagnosis_and_kept_repair(connection: sqlite3.Connection) -> None:
    """In version 2 every cell was diagnosed for itself, and what ``best`` kept was not written."""
    connection.execute("ALTER TABLE records ADD COLUMN diagnosis TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE failures ADD COLUMN diagnosis TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE records ADD COLUMN kept_repair TEXT NOT NULL DEFAULT ''")


def _add_new_biases(connection: sqlite3.Connection) -> None:
    """In version 3 every layer that needed a bias for its shift got one."""
    connection.execute("ALTER TABLE records ADD COLUMN new_biases INTEGER NOT NULL DEFAULT 1")
    connection.execute("ALTER TABLE failures ADD COLUMN new_biases INTEGER NOT NULL DEFAULT 1")


# Version → what makes the next version of it. A migration need not touch constraints nor the
# order of columns: afterwards every table is written anew as the dataclasses say.
MIGRATIONS: dict[int, Migration] = {
    1: _add_budget,
    2: _add_diagnosis_and_kept_repair,
    3: _add_new_biases,
}
