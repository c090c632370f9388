"""Try every architecture in a process of its own, and print a line for each.

python -m benchmarks.zoo --store zoo.jsonl [--only bert] [--limit 60] [--csv zoo.csv]

Needs timm, torchvision and transformers; networks of what is not installed are left out. Nothing
is downloaded: weights are random. An architecture that is in the store is not tried again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks._store import Store
from benchmarks.zoo import image_networks, sequence_networks, written_networks
from benchmarks.zoo.subject import Subject
from benchmarks.zoo.trial import attempt
from sparsemend.files import atomic_write, csv_text

SUBJECTS: dict[str, Subject] = {
    **written_networks.SUBJECTS,
    **sequence_networks.SUBJECTS,
    **image_networks.SUBJECTS,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("zoo.jsonl"))
    parser.add_argument("--only", default="", help="part of the names of those to try")
    parser.add_argument("--mask", default="magnitude", help="of the reconstruction")
    parser.add_argument("--limit", type=float, default=60, help="seconds for each")
    parser.add_argument("--table", action="store_true", help="only print what is in the store")
    parser.add_argument("--csv", type=Path, help="write a row for each here")
    options = parser.parse_args()
    store = Store(options.store)
    _import()
    results = {}
    for name, subject in SUBJECTS.items():
        if options.only.lower() not in name.lower():
            continue
        cell = {"architecture": name, "mask": options.mask}
        if options.table and json.dumps(cell, sort_keys=True) not in store.rows:
            continue
        known = len(store.rows)
        result = store.compute(cell, lambda s=subject: _apart(s, options.mask, options.limit))
        results[name] = result
        if options.table or len(store.rows) > known:
            print(_line(name, result), flush=True)
    if options.csv is not None:
        table = csv_text([_COLUMNS, *(_row(name, result) for name, result in results.items())])
        atomic_write(options.csv, lambda file: file.write(table.encode()))


def _import() -> None:
    """What all processes need, once."""
    torch.set_num_threads(1)
    for package in ("timm", "torchvision", "transformers"):
        try:
            __import__(package)
        except ImportError:
            print(f"{package} is not installed")


def _apart(subject: Subject, mask: str, limit: float) -> dict[str, Any]:
    """What a process finds within so many seconds."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, subject, mask))
    process.start()
    theirs.close()
    found: dict[str, Any] = {}
    until = time.monotonic() + limit
    try:
        while not found.get("finished"):
            if not ours.poll(max(0.0, until - time.monotonic())):
                return {**found, "defect": f"not finished within {limit:g} s"}
            found = ours.recv()
    except EOFError:
        return {**found, "defect": "the process died"}
    finally:
        process.kill()
        process.join()
    return found


def _child(pipe: Connection, subject: Subject, mask: str) -> None:
    torch.set_num_threads(1)
    try:
        found: dict[str, Any] = {}
        for found in attempt(subject, mask=mask):
            pipe.send(found)
        pipe.send({**found, "finished": True})
    except Exception as error:  # the subject itself is at fault
        pipe.send({"broken": f"{type(error).__name__}: {error}"[:600], "finished": True})


def _line(name: str, result: dict[str, Any]) -> str:
    share = f"{100 * result['share']:6.2f} %" if "share" in result else "       -"
    parts = [
        f"{name:<38} {share}  {result.get('seconds', 0):6.1f} s  {result.get('peak_mib', 0):>6} MiB"
    ]
    if result.get("share_with_embeddings", 0) > result.get("share", 0):
        parts.append(f"with tied embeddings {100 * result['share_with_embeddings']:.2f} %")
    parts += [f"{key} {result[key]}" for key in ("broken", "defect", "refused") if key in result]
    for repair in ("variance", "reconstruct"):
        parts.append(f"{repair}: {_verdict(result.get(repair, {}))}")
    parts += [] if result.get("unchanged", True) else ["MODEL CHANGED"]
    parts += [f"left out {sum(v.values()):,}: {k}" for k, v in result.get("left_out", {}).items()]
    return "\n    ".join(parts)


_COLUMNS = (
    *("architecture", "parameters", "matrix weights", "share in layers"),
    *("with tied embeddings", "layers", "variance", "reconstruct", "judge"),
    *("loss, variance", "loss, reconstruct", "model unchanged", "seconds", "peak MiB"),
    "left out",
)


def _row(name: str, result: dict[str, Any]) -> list[Any]:
    repairs = [result.get(repair, {}) for repair in ("variance", "reconstruct")]
    verdicts = [_verdict(repair) for repair in repairs]
    for key in ("broken", "defect", "refused"):
        if key in result:
            verdicts = [f"{key}: {result[key]}" if v == "-" else v for v in verdicts]
    losses = [round(r["loss"], 4) if r.get("loss") is not None else None for r in repairs]
    share = result.get("share")
    tied = result.get("share_with_embeddings", share)
    left_out = result.get("left_out", {})
    return [
        *(name, result.get("parameters"), result.get("matrix")),
        *(None if part is None else round(part, 4) for part in (share, tied)),
        *(result.get("layers"), *verdicts, repairs[0].get("judge"), *losses),
        *(result.get("unchanged"), result.get("seconds"), result.get("peak_mib")),
        "; ".join(f"{sum(parts.values())} {reason}" for reason, parts in left_out.items()),
    ]


def _verdict(found: dict[str, Any]) -> str:
    if not found:
        return "-"
    for key in ("defect", "refused"):
        if key in found:
            return f"{key}: {found[key]}"
    wrong = [key for key in ("exact", "masks", "finite", "strict") if not found[key]]
    wrong += [f"{found['zeros_missing']} zeros missing"] if found["zeros_missing"] else []
    return ("ok" if not wrong else ", ".join(f"NOT {key}" for key in wrong)) + (
        f" (+{found['added_biases']} biases)" if found.get("added_biases") else ""
    )


if __name__ == "__main__":
    main()
