"""Files that are not what they say, and a module of networks that misbehave."""

from __future__ import annotations

import io
import json
import os
import pickle
import sqlite3
import struct
import zipfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from tests.faults.networks import small_network

import sparsemend as sm

ESCAPE = "a\x1b[2J"
DEEP = "[" * 100_000
NETWORKS = """
import math
import sys

import torch
from torch import nn

from tests.faults.networks import Outer, edited, lookup, nan, small_network as make


def broken():
    return edited(lambda m: m[3].weight[0, 0].fill_(math.nan))

def overflowing():
    return edited(lambda m: [m[i].weight.fill_(1e30) for i in (3, 6)])

def failing(): return Outer(lookup)
def exiting(): return Outer(lambda _: sys.exit(7))
def without_numbers(): return Outer(nan)
def without_layers(): return nn.Sequential(nn.Flatten())
def lazy(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(5))
def meta(): return make().to("meta")
def of_complex_numbers(): return make().to(torch.cfloat)
def none(): return None
def leaving(): sys.exit(7)
def raising(): raise KeyError("k")
def picky(classes, width): return make()
def no_batches(): return []
def some_batches():
    yield torch.zeros(8, 1, 8, 8)
    raise OSError("the disk is gone")
"""


class Bomb:
    """Whoever unpickles it leaves a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("exploded", "w"))


def lying_archive(key: str) -> bytes:
    """An .npz whose array claims 5.8 TiB."""
    array, archive = io.BytesIO(), io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 800)}
    np.lib.format.write_array_header_1_0(array, header)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"{key}.npy", array.getvalue() + b"\0" * 64)
    return archive.getvalue()


def write_hostile_files(folder: Path, good: Any) -> None:
    """Fill a folder; ``good`` are accepted arguments, of the small network."""
    _weights(folder)
    _data(folder)
    _results(folder, good)
    _stores(folder, good.folder / "s.sqlite")
    (folder / "net.py").write_text(NETWORKS)
    (folder / "crash.py").write_text("raise KeyError('k')")
    (folder / "syntax.py").write_text("def f(:")
    (folder / "loop.html").symlink_to("loop.html")
    (folder / "astray.html").symlink_to("nowhere/x.html")
    (folder / "null.safetensors").symlink_to("/dev/null")
    for ending in ("html", "json", "safetensors", "sqlite", "csv", "npz", "toml"):
        (folder / f"folder.{ending}").mkdir()
        os.mkfifo(folder / f"pipe.{ending}")


def _weights(folder: Path) -> None:
    state = small_network().state_dict()
    files: dict[str, Mapping[str, torch.Tensor]] = {
        "weights": state,
        "extra": {**state, ESCAPE: torch.ones(1)},
        "nan": {**state, "3.bias": state["3.bias"] / 0},
        "less": {key: value for key, value in state.items() if key != "6.bias"},
        "integers": {key: value.long() for key, value in state.items()},
    }
    for name, tensors in files.items():
        safetensors.torch.save_file(dict(tensors), folder / f"{name}.safetensors")
    for name, text in (("many", json.dumps(["x"] * 10_000)), ("deep", DEEP), ("three", "3")):
        safetensors.torch.save_file(
            state, folder / f"{name}_biases.safetensors", {"added_biases": text}
        )
    whole = (folder / "weights.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-50])
    (folder / "long.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    torch.save(Bomb(), folder / "bomb.pt")
    torch.save(small_network(), folder / "pickled.pt")
    torch.save([1], folder / "list.pt")
    (folder / "bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    (folder / "junk.pt").write_bytes(b"junk")


def _data(folder: Path) -> None:
    images = np.linspace(0, 1, 40 * 64, dtype=np.float32).reshape(40, 1, 8, 8)
    arrays: dict[str, Mapping[str, Any]] = {
        "data": {"x_train": images, "x_test": images[:16], "y_test": np.arange(16) % 5},
        "images": {"x_train": images},
        "few": {"x_train": images[:2]},
        "none": {"x_train": images[:0]},
        "nan_images": {"x_train": images * np.nan},
        "complex": {"x_train": images * 1j},
        "texts": {"x_train": np.array(["a", "b"])},
        "number": {"x_train": np.float32(3)},
        "bomb": {"x_train": np.array([Bomb()], dtype=object)},
        "empty": {},
        "few_labels": {"x_train": images, "x_test": images, "y_test": np.arange(3)},
        "large_labels": {"x_train": images, "x_test": images, "y_test": np.full(40, 2**40)},
    }
    for name, content in arrays.items():
        np.savez(folder / f"{name}.npz", **content)
    (folder / "lying.npz").write_bytes(lying_archive("x_train"))
    texts: dict[str, str | bytes] = {
        "junk.npz": "junk", "empty.txt": "", "bytes.txt": b"\xff\xfe\0\x80",
        "astray.txt": "nowhere.png\n", "head.csv": "a,b\n", "junk.parquet": "PAR1junkPAR1",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "photos").mkdir()
    (folder / "photos" / "a.png").write_text("junk")


def _results(folder: Path, good: Any) -> None:
    texts = {"junk": "junk", "nothing": "", "deep": DEEP, "list": "[]", "number": "3", "nan": "NaN"}
    for name, text in texts.items():
        (folder / f"{name}.json").write_text(text)
    allocation, diagnosis = good.allocation.to_dict(), good.diagnosis.to_dict()
    kept, rows = allocation["kept"], [[0.0] * len(diagnosis["densities"])] * 3
    compression = good.result.to_dict()
    plan = sm.Plan(good.allocation, "magnitude", "none", "sequential", "full", 24).to_dict()
    changed: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "allocation": (allocation, {}),
        "negative_allocation": (allocation, {"kept": dict.fromkeys(kept, -1)}),
        "share_allocation": (allocation, {"kept": dict.fromkeys(kept, 0.5)}),
        "infinite_allocation": (allocation, {"sizes": dict.fromkeys(kept, float("inf"))}),
        "nameless_allocation": (allocation, {"rule": 3}),
        "other_allocation": (allocation, {"kept": {ESCAPE: 1}, "sizes": {ESCAPE: 2}}),
        "negative_diagnosis": (diagnosis, {"raw": [[-1.0] * len(row) for row in rows]}),
        "infinite_diagnosis": (diagnosis, {"raw": [[float("inf")] * len(row) for row in rows]}),
        "huge_diagnosis": (diagnosis, {"raw": [[10**400] * len(row) for row in rows]}),
        "nameless_diagnosis": (diagnosis, {"repair": 3}),
        "other_diagnosis": (diagnosis, {"layers": [ESCAPE, "b", "c"]}),
        "nan_compression": (compression, {"kl": float("nan")}),
        "negative_compression": (compression, {"kl": -1.0}),
        "sure_compression": (compression, {"top1_dense": 5.0}),
        "no_plan": (compression, {}),
        "empty_plan": ({"plan": {}}, {}),
        "other_plan": (plan, {"effort": "great"}),
        "negative_plan": (plan, {"inputs": -3}),
        "nameless_plan": (plan, {"mask": 3}),
        "longer_plan": (plan, {"x": 3}),
        "plan": (plan, {}),
    }
    for name, (values, changes) in changed.items():
        (folder / f"{name}.json").write_text(json.dumps({**values, **changes}))
    (folder / "lying_diagnosis.npz").write_bytes(lying_archive("raw"))


def _stores(folder: Path, store: Path) -> None:
    statements = {
        "text": "UPDATE records SET sparsity = 'x'",
        "list": "UPDATE records SET densities = '3'",
        "deep": f"UPDATE records SET densities = '{DEEP}'",
        "bytes": "UPDATE records SET rule = x'ff'",
        "later": "PRAGMA user_version = 999",
        "foreign": "PRAGMA application_id = 7",
        "tableless": "DROP TABLE records",
        "narrow": "ALTER TABLE records DROP COLUMN kl",
    }
    whole = store.read_bytes()
    for name, statement in statements.items():
        path = folder / f"{name}.sqlite"
        path.write_bytes(whole)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
            connection.commit()
    (folder / "cut.sqlite").write_bytes(whole[: len(whole) // 2])
    (folder / "junk.sqlite").write_bytes(b"junk" * 300)
