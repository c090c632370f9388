"""A disk that is full: every writer says so in one error, and leaves nothing half-written."""

import errno
import os
import shutil
import sqlite3
import subprocess

import numpy as np
import pytest
import torch
from tests.reports.samples import make_diagnosis, make_records
from tests.sweeps.samples import make_record
from torch import nn

import sparsemend as sm
from sparsemend.models import digits
from sparsemend.sweeps import SweepResult, schema
from sparsemend.sweeps.result import write_csv
from sparsemend.sweeps.store import open_store, read_store

LAYERS = tuple(f"layer{i}" for i in range(40))


def save_checkpoint(path):
    model = nn.Sequential(nn.Linear(100, 100))
    allocation = sm.allocate(model, 0.5, "uniform")
    sm.save_checkpoint(sm.prune(model, allocation), path, allocation)


def export_layer(path, name):
    sm.export(nn.Linear(100, 100), path, name, example=torch.ones(1, 100))


WRITERS = {
    "d.json": lambda path: make_diagnosis(LAYERS).save(path),
    "d.npz": lambda path: make_diagnosis(LAYERS).save(path),
    "c.safetensors": save_checkpoint,
    "r.html": lambda path: sm.report(make_diagnosis()).save(path),
    "svg/repairability.svg": lambda path: sm.report(make_diagnosis()).save_figures(path.parent),
    "csv/repairability.csv": lambda path: sm.report(make_diagnosis(LAYERS)).save_figures(
        path.parent, "csv"
    ),
    "x.pt2": lambda path: export_layer(path, "shrink"),
    "x.packed": lambda path: export_layer(path, "packed"),
    "x.onnx": lambda path: export_layer(path, "onnx"),
    "s.csv": lambda path: SweepResult(make_records()).to_csv(path),
    "w.csv": lambda path: write_csv(path, [{"a": "x" * 9000}] * 5),
}

FOLDERS = {"x_c": lambda path: export_layer(path, "c")}


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """A file system of 512 KiB."""
    folder = tmp_path_factory.mktemp("small")
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=512k,nr_inodes=100", "tmpfs", folder]
    done = mount and subprocess.run(command, capture_output=True, text=True, check=False)
    if not done or done.returncode:
        pytest.skip(f"no file system may be mounted here: {done and done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def nearly_full(small_disk):
    """It with a page left."""
    filler = small_disk / "filler"
    free = os.statvfs(small_disk)
    filler.write_bytes(bytes(free.f_bavail * free.f_bsize - 4096))
    yield small_disk
    for path in small_disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "write"), (WRITERS | FOLDERS).items())
def test_on_a_disk_that_is_full(nearly_full, name, write):
    path = nearly_full / name
    path.parent.mkdir(exist_ok=True)
    before = contents(nearly_full)
    with pytest.raises(sm.SparsemendError) as caught:
        write(path)
    assert str(caught.value) == (
        f"cannot write there (No space left on device): got '{path}'; "
        "make room there, or choose another folder"
    )
    assert contents(nearly_full) == before
    (nearly_full / "filler").unlink()
    write(path)
    assert sum(map(len, contents(nearly_full).values())) > 4096


@pytest.mark.parametrize("call", ["fsync", "open"])
@pytest.mark.parametrize("name", WRITERS)
def test_where_the_system_says_so(tmp_path, monkeypatch, name, call):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"old")
    real = os.open

    def fail(*arguments, **__):
        if call == "fsync" or str(arguments[0]).endswith(".tmp"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(sm.SparsemendError, match=r"No space left on device\): got .*make room"):
        WRITERS[name](path)
    assert contents(tmp_path) == {path: b"old"}


def test_the_digits_network_comes_without_its_cache(nearly_full, monkeypatch):
    monkeypatch.setenv("SPARSEMEND_CACHE", str(nearly_full / "cache"))
    model = sm.models.create("digits")
    monkeypatch.setattr(digits, "train", lambda **_: (model, {}))
    with pytest.warns(sm.SparsemendWarning, match="cannot be cached .*No space left on device"):
        assert digits.pretrained() is model
    assert not [path for path in contents(nearly_full) if path.name != "filler"]


def records():
    for number in range(10_000):
        cell = make_record().cell
        yield make_record(
            type(cell)(**{**vars(cell), "seed": number}), densities={"layer" * 50: 0.1}
        )


def fill(path, added):
    with open_store(path) as store:
        for record in records():
            store.add(record)
            added.append(record)


def check_store(path, added):
    with read_store(path) as store:
        assert list(store.records().values()) == added
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize("existing", [False, True])
def test_a_store_on_a_disk_that_is_full(nearly_full, existing):
    path = nearly_full / "s.sqlite"
    if existing:
        (nearly_full / "filler").unlink()
    added = []
    with pytest.raises(sm.SparsemendError) as caught:
        fill(path, added)
    assert str(caught.value) == (
        f"cannot write there (database or disk is full): got '{path}'; "
        "make room there, or choose another folder"
    )
    if existing:
        check_store(path, added)
    else:
        assert [file.name for file in nearly_full.iterdir()] == ["filler"]


def test_a_store_that_may_not_grow(tmp_path, monkeypatch):
    path, added, connect = tmp_path / "s.sqlite", [], sqlite3.connect

    def small(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(sm.SparsemendError, match=r"database or disk is full.*make room"):
        fill(path, added)
    monkeypatch.undo()
    assert added
    check_store(path, added)
    with open_store(path) as store:
        store.add(next(record for record in records() if record.cell.seed == len(added)))


def test_a_store_that_cannot_be_made_leaves_no_file(tmp_path, monkeypatch):
    def fail(_):
        raise sqlite3.OperationalError("no such luck")

    monkeypatch.setattr(schema, "create", fail)
    with pytest.raises(sm.SparsemendError, match="no such luck"):
        open_store(tmp_path / "s.sqlite").__enter__()
    assert not list(tmp_path.iterdir())


def test_two_files_of_the_same_content_are_the_same(tmp_path):
    torch.manual_seed(0)
    for name in ("d.json", "d.npz", "r.html", "s.csv"):
        WRITERS[name](tmp_path / f"1{name}")
        WRITERS[name](tmp_path / f"2{name}")
        assert (tmp_path / f"1{name}").read_bytes() == (tmp_path / f"2{name}").read_bytes()
    assert isinstance(sm.Diagnosis.load(tmp_path / "1d.npz").rr, np.ndarray)
