"""Stores of earlier versions, made with the SQL of their time."""

import dataclasses
import json
import sqlite3
from contextlib import closing
from dataclasses import astuple, dataclass

import pytest
from tests.sweeps.samples import SIZES, make_cell, make_record, make_settings, table

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.sweeps import DrawnInputs, Failure, Network, make_grid, schema
from sparsemend.sweeps import store as module
from sparsemend.sweeps.driver import run_sweep
from sparsemend.sweeps.records import Record, Task
from sparsemend.sweeps.store import open_store, read_store

KEY = """
    network TEXT NOT NULL, rule TEXT NOT NULL, mask TEXT NOT NULL, repair TEXT NOT NULL,
    sparsity REAL NOT NULL, seed INTEGER NOT NULL, scope TEXT NOT NULL,
    calibration_size INTEGER NOT NULL, heldout_size INTEGER NOT NULL, test_size INTEGER NOT NULL,
    batch_size INTEGER NOT NULL, weights TEXT NOT NULL, inputs TEXT NOT NULL, test TEXT NOT NULL
"""
NAMES = (
    "network, rule, mask, repair, sparsity, seed, scope, calibration_size, heldout_size, "
    "test_size, batch_size, weights, inputs, test"
)
LATER = {  # columns of the key, and their names
    1: ("", ""),
    2: (", budget TEXT NOT NULL", ", budget"),
    3: (", budget TEXT NOT NULL, diagnosis TEXT NOT NULL", ", budget, diagnosis"),
}
RESULTS = {1: (), 2: (), 3: ("kept_repair",)}  # further columns of records
TABLES = """
CREATE TABLE records (
    {columns},
    achieved_sparsity REAL NOT NULL, top1_dense REAL, top1_pruned REAL, top1_repaired REAL,
    chance REAL NOT NULL, kl REAL NOT NULL, agreement REAL NOT NULL, seconds REAL NOT NULL,
    versions TEXT NOT NULL, densities TEXT NOT NULL,{results}
    finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    UNIQUE ({names})
);
CREATE TABLE failures (
    {columns},
    error TEXT NOT NULL,
    UNIQUE ({names})
);
PRAGMA application_id = 1399673719;
PRAGMA user_version = {version};
"""
FIELDS = ("achieved_sparsity", "top1_dense", "top1_pruned", "top1_repaired", "chance", "kl",
          "agreement", "seconds", "versions", "densities")  # fmt: skip
WHEN = "2025-01-02T03:04:05Z"

PLAIN = make_record()
SEARCHED = make_record(make_cell(rule="auto"), make_settings(budget="40"), top1_dense=None,
                       densities={"b": 1 / 3, "a": 1.0})  # fmt: skip
FAILED = Failure(make_cell(sparsity=0.99), "too small", make_settings())
OTHER_FAILED = Failure(make_cell(sparsity=0.98), "too small", make_settings())


def write_old(path, version, outcomes):
    """A store as that version wrote it."""
    columns, names = LATER[version]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            TABLES.format(
                columns=KEY + columns,
                names=NAMES + names,
                version=version,
                results="".join(f" {name} TEXT NOT NULL," for name in RESULTS[version]),
            )
        )
        for outcome in outcomes:
            # The cell without a target.
            key = (*astuple(outcome.cell)[:-1], *astuple(outcome.settings)[: 7 + version])
            if isinstance(outcome, Failure):
                insert(connection, "failures", NAMES + names + ", error", (*key, outcome.error))
            else:
                values = [getattr(outcome, name) for name in FIELDS]
                values[-2:] = map(json.dumps, values[-2:])
                values += [getattr(outcome, name) for name in RESULTS[version]]
                names_ = ", ".join([NAMES + names, *FIELDS, *RESULTS[version], "finished"])
                insert(connection, "records", names_, (*key, *values, WHEN))


def insert(connection, name, columns, values):
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {name} ({columns}) VALUES ({marks})", values)


def without_budget(outcome):
    return dataclasses.replace(outcome, settings=dataclasses.replace(outcome.settings, budget=""))


@pytest.mark.parametrize("version", LATER)
def test_an_old_store_is_read_without_a_change(tmp_path, version):
    path = tmp_path / "s.sqlite"
    write_old(path, version, [SEARCHED, FAILED, PLAIN])
    before = path.read_bytes()
    with read_store(path) as store:
        records, failures = store.records(), store.failures()
    searched = without_budget(SEARCHED) if version == 1 else SEARCHED
    assert list(records.values()) == [searched, PLAIN]  # in the order of writing
    assert list(records) == [Task(r.cell, r.settings) for r in (searched, PLAIN)]
    assert list(failures.values()) == [FAILED]
    assert list(records[Task(searched.cell, searched.settings)].densities) == ["b", "a"]
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s.sqlite"]


@pytest.mark.parametrize("version", LATER)
def test_writing_to_an_old_store_makes_it_one_of_today(tmp_path, version):
    path, new = tmp_path / "s.sqlite", tmp_path / "new.sqlite"
    write_old(path, version, [PLAIN, FAILED, OTHER_FAILED])
    given = make_record(None, make_settings(diagnosis="x", new_biases=False), kept_repair="mean")
    cured = make_record(FAILED.cell)
    with open_store(path) as store:
        store.add(given)  # told apart by a column that there was not
        store.add(cured)
        with pytest.raises(sqlite3.IntegrityError):
            store.add(PLAIN)
    with read_store(path) as store:
        assert list(store.records().values()) == [PLAIN, given, cured]
        assert list(store.failures().values()) == [OTHER_FAILED]
    with open_store(new):
        pass
    assert layout(path) == layout(new)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT finished FROM records").fetchone() == (WHEN,)


def layout(path):
    with closing(sqlite3.connect(path)) as connection:
        found = {
            pragma: connection.execute(f"PRAGMA {pragma}").fetchall()
            for pragma in ("application_id", "user_version", "table_info(records)",
                           "table_info(failures)", "index_list(records)", "index_list(failures)")
        }  # fmt: skip
        found["tables"] = sorted(connection.execute("SELECT type, name FROM sqlite_master"))
        return found


def test_an_old_store_is_resumed_and_reported_on(digits, images, tmp_path):
    networks = [Network("digits", digits.model, DrawnInputs(images, **SIZES))]
    grid = make_grid([0.8, 0.9, 0.9999], ["erk", "rr"], None, "mean")
    whole = run_sweep(networks, grid, "sequential", None)
    path = tmp_path / "s.sqlite"
    write_old(path, 2, [*whole.records[:3], *whole.failures[:1]])
    assert "rr" in str(sm.SweepResult.load(path))
    keys = [figure.key for figure in sm.report(sm.SweepResult.load(path)).figures]
    assert "rules-and-repairs" in keys
    result = run_sweep(networks, grid, "sequential", path)
    assert result.computed == 1
    assert len(result.failures) == 2
    assert {r.kept_repair for r in result.records} == {"", "mean"}
    assert table(result.records) == table(whole.records)
    assert sm.SweepResult.load(path).failures == result.failures
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert version == schema.SCHEMA_VERSION


@dataclass(frozen=True)
class Measured(Record):
    """A record with a column more."""

    joules: float = 0.0
    host: str | None = None


@pytest.fixture
def one_column_more(monkeypatch):
    def add(connection):
        connection.execute("ALTER TABLE records ADD COLUMN joules REAL NOT NULL DEFAULT 0.0")
        connection.execute("ALTER TABLE records ADD COLUMN host TEXT")

    for place in (schema, module):
        monkeypatch.setattr(place, "Record", Measured)
    now = schema.SCHEMA_VERSION
    monkeypatch.setattr(schema, "MIGRATIONS", {**schema.MIGRATIONS, now: add})
    monkeypatch.setattr(schema, "SCHEMA_VERSION", now + 1)


def write_today(path, outcomes):
    with open_store(path) as store:
        for outcome in outcomes:
            store.add(outcome)


@pytest.mark.parametrize("write", [write_today, lambda path, rest: write_old(path, 2, rest)])
def test_a_column_more(tmp_path, request, write):
    path = tmp_path / "s.sqlite"
    write(path, [PLAIN, FAILED])
    before = path.read_bytes()
    request.getfixturevalue("one_column_more")
    old = Measured(**vars(PLAIN))
    with read_store(path) as store:
        assert list(store.records().values()) == [old]
    assert path.read_bytes() == before
    new = Measured(**vars(make_record(make_cell(seed=1))), joules=2.5, host="here")
    with open_store(path) as store:
        store.add(new)
    with read_store(path) as store:
        assert list(store.records().values()) == [old, new]
        assert list(store.failures().values()) == [FAILED]


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "s.sqlite"
    write_old(path, 1, [PLAIN])
    before = path.read_bytes()

    def fail(connection):
        connection.execute("DROP TABLE failures")
        raise sqlite3.OperationalError("no luck")

    monkeypatch.setitem(schema.MIGRATIONS, 2, fail)
    with pytest.raises(SparsemendError, match="no luck"):
        open_store(path).__enter__()
    assert path.read_bytes() == before


def test_columns_follow_the_annotations():
    @dataclass
    class Odd:
        text: str
        maybe: int | None
        several: list[str]

    with pytest.raises(TypeError, match="no column for field 'several'"):
        schema.columns(Odd)
    assert [c.sql for c in schema.columns(Measured)[-2:]] == ["joules REAL NOT NULL", "host TEXT"]


def test_class_scores_were_judged_by_their_kl(tmp_path):
    path = tmp_path / "s.sqlite"
    write_old(path, 3, [make_record(kept_repair="mean")])
    with read_store(path) as store:
        (record,) = store.records().values()
    assert (record.settings.judge, record.settings.output) == ("auto", "")
    assert (record.judged, record.recovered, record.kept_repair) == ("kl", None, "mean")
    assert record.recovery("agreement") == (0.7 - 0.1) / (1 - 0.1)
    other = make_record(None, make_settings(judge="relative"), agreement=None, chance=None)
    with open_store(path) as store:
        store.add(other)
        assert list(store.records().values()) == [record, other]
