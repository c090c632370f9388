import math
import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from tests.sweeps.samples import make_cell, make_record, make_settings

from sparsemend import SparsemendError
from sparsemend.sweeps import Failure
from sparsemend.sweeps.records import Task
from sparsemend.sweeps.schema import SCHEMA_VERSION
from sparsemend.sweeps.store import open_store, read_store


def task(record):
    return Task(record.cell, record.settings)


RECORD = make_record(
    make_cell(sparsity=0.1 + 0.2, rule="erk[layer'*\"=rr]"),
    make_settings(weights="é"),
    kl=math.pi * 1e-9,
    top1_dense=None,
    top1_pruned=None,
    top1_repaired=None,
    versions={"torch": "2", "python": "3"},
    densities={"b": 1 / 3, "a": 1.0},
)


TARGETED = make_record(make_cell(sparsity=None, target=f"flops {1 / 3!r}"), reached=0.3)


@pytest.mark.parametrize("where", [None, "s.sqlite"])
def test_a_record_comes_back_as_it_was(tmp_path, where):
    path = where and tmp_path / where
    with open_store(path) as store:
        assert store.records() == store.failures() == {}
        store.add(RECORD)
        assert store.records() == {task(RECORD): RECORD}
    if path:
        with open_store(path) as store, read_store(path) as reader:
            assert store.records() == reader.records() == {task(RECORD): RECORD}
        (found,) = reader_densities(path)
        assert list(found) == ["b", "a"]  # execution order


def reader_densities(path):
    with read_store(path) as store:
        return [record.densities for record in store.records().values()]


def test_everything_in_the_key_distinguishes(tmp_path):
    others = {"network": "m", "rule": "rr", "mask": "m", "repair": "m", "sparsity": 0.91, "seed": 1}
    records = [make_record(), *(make_record(make_cell(**{k: v})) for k, v in others.items())]
    targets = ("flops 0.1", "flops 0.2", "latency 0.1")
    records += [make_record(make_cell(sparsity=None, target=t), reached=0.1) for t in targets]
    records += [
        make_record(None, make_settings(**{name: value}))
        for name, value in (
            ("scope", "one-shot"), ("calibration_size", 65), ("heldout_size", 1),
            ("test_size", 0), ("batch_size", 1), ("weights", "x"), ("inputs", "x"), ("test", "x"),
            ("budget", "1"), ("diagnosis", "x"),
        )
    ]  # fmt: skip
    with open_store(tmp_path / "s.sqlite") as store:
        for record in records:
            store.add(record)
        assert list(store.records().values()) == records  # in the order of writing


@pytest.mark.parametrize("record", [RECORD, TARGETED], ids=["sparsity", "target"])
def test_a_record_is_final(tmp_path, record):
    path = tmp_path / "s.sqlite"

    def add():
        with open_store(path) as store:
            store.add(record)

    add()
    with pytest.raises(SparsemendError, match="UNIQUE"):
        add()
    with read_store(path) as store:
        assert list(store.records().values()) == [record]


def test_a_failure_gives_way_to_what_comes_later(tmp_path):
    cell, settings = RECORD.cell, RECORD.settings
    with open_store(tmp_path / "s.sqlite") as store:
        store.add(Failure(cell, "first", settings))
        store.add(Failure(cell, "second", settings))
        assert [failure.error for failure in store.failures().values()] == ["second"]
        store.add(RECORD)
        assert store.failures() == {}
        assert list(store.records()) == [task(RECORD)]


def test_one_driver_at_a_time_and_readers_at_any(tmp_path):
    path = tmp_path / "s.sqlite"
    with open_store(path) as store:
        store.add(RECORD)
        with (
            pytest.raises(SparsemendError, match="another sweep is writing to this store"),
            open_store(path),
        ):
            pass
        with read_store(path) as reader:
            assert len(reader.records()) == 1
    with open_store(path):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["s.sqlite"]


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from sparsemend.sweeps import schema, store as module
from tests.sweeps.test_store import RECORD
path, moment = Path(sys.argv[1]), sys.argv[2]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if moment == "schema":
    # After the statements that make the first table, before the commit.
    statements = schema.tables()
    schema.tables = lambda: {"records": statements["records"], "then": "SELECT die()"}
    connect = sqlite3.connect
    def dying(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.create_function("die", 0, die)
        return connection
    module.sqlite3.connect = dying
with module.open_store(path) as store:
    if moment == "insert":
        insert = store._insert
        store._insert = lambda *args: (insert(*args), die())
    store.add(RECORD)
    die()
"""


@pytest.mark.parametrize("moment", ["schema", "insert", "committed"])
def test_a_killed_driver_leaves_a_sound_store(tmp_path, moment):
    path = tmp_path / "s.sqlite"
    done = subprocess.run([sys.executable, "-c", KILLED, path, moment], check=False)
    assert done.returncode == -signal.SIGKILL
    if moment != "schema":
        with read_store(path) as store:
            assert len(store.records()) == (moment == "committed")
    with open_store(path) as store:
        if moment != "committed":
            store.add(RECORD)
        assert list(store.records().values()) == [RECORD]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_files_that_are_no_store(tmp_path):
    text, other = tmp_path / "a.txt", tmp_path / "other.sqlite"
    text.write_text("not a database, but long enough to be taken for one" * 20)
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    before = other.read_bytes()
    for use in (open_store, read_store):
        with pytest.raises(SparsemendError, match="the store cannot be used"), use(text):
            pass
        with pytest.raises(SparsemendError, match="this file is no store of a sweep"), use(other):
            pass
    assert other.read_bytes() == before
    with pytest.raises(SparsemendError, match="there is no store of a sweep"):
        read_store(tmp_path / "none.sqlite").__enter__()


def test_another_version(tmp_path):
    path = tmp_path / "s.sqlite"
    with open_store(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    message = f"has another version: got 99; allowed: {SCHEMA_VERSION}"
    with pytest.raises(SparsemendError, match=message):
        read_store(path).__enter__()


def test_a_folder_that_cannot_be_written(tmp_path):
    for path in (tmp_path / "none" / "s.sqlite", tmp_path):
        with pytest.raises(SparsemendError, match="the store cannot be there"):
            open_store(path).__enter__()
    assert not list(tmp_path.iterdir())


OTHER_DRIVER = """
import sys
from pathlib import Path
from sparsemend.sweeps.store import open_store
with open_store(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


def link_beside(path, folder):
    (folder / "b.sqlite").symlink_to(path.name)
    return folder / "b.sqlite"


def link_elsewhere(path, folder):
    (folder / "below").mkdir()
    (folder / "below" / "b.sqlite").symlink_to(path)
    return folder / "below" / "b.sqlite"


def link_to_the_folder(path, folder):
    (folder.parent / "other").symlink_to(folder)
    return folder.parent / "other" / path.name


def hard_link(path, folder):
    (folder / "below").mkdir()
    (folder / "below" / "b.sqlite").hardlink_to(path)
    return folder / "below" / "b.sqlite"


LINKS = (link_beside, link_elsewhere, link_to_the_folder, hard_link)


@pytest.fixture
def linked(tmp_path, request):
    """A store and its second name, either way round."""
    folder = tmp_path / "stores"
    folder.mkdir()
    path = folder / "s.sqlite"
    with open_store(path) as store:
        store.add(RECORD)
    return path, request.param(path, folder)


@pytest.mark.parametrize("linked", LINKS, indirect=True)
@pytest.mark.parametrize("way", [1, -1])
def test_a_second_name_lets_no_second_driver_in(linked, way):
    first, second = linked[::way]
    with open_store(first) as store:
        with (
            pytest.raises(SparsemendError, match="another sweep is writing to this store"),
            open_store(second),
        ):
            pass
        with read_store(second) as reader:
            assert reader.records() == store.records()
        store.add(make_record(make_cell(seed=7)))
    with open_store(second) as store:
        assert len(store.records()) == 2


@pytest.mark.parametrize("linked", LINKS, indirect=True)
@pytest.mark.parametrize("way", [1, -1])
def test_nor_into_another_process(linked, way):
    first, second = linked[::way]
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_DRIVER, first],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as driver:  # fmt: skip
        assert driver.stdout.readline() == "in\n"
        with (
            pytest.raises(SparsemendError, match="another sweep is writing to this store"),
            open_store(second),
        ):
            pass
        with read_store(second) as reader:
            assert len(reader.records()) == 1
        driver.kill()  # the lock goes with the process
        driver.wait()
    with open_store(second) as store:
        store.add(make_record(make_cell(seed=7)))


def test_a_link_to_a_store_that_is_still_to_be_made(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "s.sqlite").symlink_to("far/t.sqlite")
    with open_store(tmp_path / "s.sqlite") as store:
        store.add(RECORD)
    assert (tmp_path / "s.sqlite").is_symlink()
    with read_store(tmp_path / "far" / "t.sqlite") as store:
        assert len(store.records()) == 1


def test_what_is_no_file_is_no_store(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SparsemendError, match="it is a named pipe"):
        open_store(tmp_path / "pipe").__enter__()
    with pytest.raises(SparsemendError, match="there is no store"):
        read_store(tmp_path / "pipe").__enter__()


def test_errors_of_a_driver_are_its_own(tmp_path):
    error = OSError(2, "not the store's")
    with pytest.raises(OSError, match="not the store's") as caught, open_store(tmp_path / "s"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("kept", ["[" * 200_000, "{", ""])
def test_damaged_json_in_a_store(tmp_path, kept):
    path = tmp_path / "s.sqlite"
    with open_store(path) as store:
        store.add(RECORD)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE records SET densities = ?", (kept,))
    connection.close()
    with (
        pytest.raises(SparsemendError, match="column densities holds no JSON"),
        read_store(path) as store,
    ):
        store.records()


def test_a_target_that_failed_may_be_tried_again():
    with open_store(None) as store:
        store.add(Failure(TARGETED.cell, "too dear", TARGETED.settings))
        store.add(TARGETED)
        assert (store.records(), store.failures()) == ({task(TARGETED): TARGETED}, {})
