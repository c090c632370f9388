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


def _add_judge(connection: sqlite3.Connection) -> None:
    """Version 3 judged class scores alone, all outputs by their KL.

    From then on agreement and chance may be missing: outputs need not be class scores.
    """
    for table in ("records", "failures"):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN judge TEXT NOT NULL DEFAULT 'auto'")
        connection.execute(f"ALTER TABLE {table} ADD COLUMN output TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE records ADD COLUMN judged TEXT NOT NULL DEFAULT 'kl'")
    connection.execute("ALTER TABLE records ADD COLUMN recovered REAL")


def _add_new_biases(connection: sqlite3.Connection) -> None:
    """Until version 4 every layer that needed a bias for its shift got one."""
    connection.execute("ALTER TABLE records ADD COLUMN new_biases INTEGER NOT NULL DEFAULT 1")
    connection.execute("ALTER TABLE failures ADD COLUMN new_biases INTEGER NOT NULL DEFAULT 1")


def _add_choice_of_layers(connection: sqlite3.Connection) -> None:
    """Until version 5 sweeps pruned all layers."""
    for table in ("records", "failures"):
        for name in ("include", "exclude"):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} TEXT NOT NULL DEFAULT '[]'")


def _add_coverage(connection: sqlite3.Connection) -> None:
    """Until version 6 sparsity was kept over the layers alone."""
    for name in ("matrix_sparsity", "parameter_sparsity"):
        connection.execute(f"ALTER TABLE records ADD COLUMN {name} REAL")


def _add_distill(connection: sqlite3.Connection) -> None:
    """Until version 7 no repair trained."""
    connection.execute("ALTER TABLE records ADD COLUMN distill TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE failures ADD COLUMN distill TEXT NOT NULL DEFAULT ''")


def _add_multiplications(connection: sqlite3.Connection) -> None:
    """Until version 8 no record said how many multiplications were left."""
    connection.execute("ALTER TABLE records ADD COLUMN kept_multiplications REAL")


def _add_pattern(connection: sqlite3.Connection) -> None:
    """Until version 9 any weights could be kept."""
    for table in ("records", "failures"):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN pattern TEXT NOT NULL DEFAULT 'free'")


def _add_target(connection: sqlite3.Connection) -> None:
    """Until version 10 every cell had a sparsity."""
    for table in ("records", "failures"):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN target TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE records ADD COLUMN reached REAL")


# Version → what makes the next version of it. A migration need not touch constraints nor the
# order of columns: afterwards every table is written anew as the dataclasses say.
MIGRATIONS: dict[int, Migration] = {
    1: _add_budget,
    2: _add_diagnosis_and_kept_repair,
    3: _add_judge,
    4: _add_new_biases,
    5: _add_choice_of_layers,
    6: _add_coverage,
    7: _add_distill,
    8: _add_multiplications,
    9: _add_pattern,
    10: _add_target,
}
