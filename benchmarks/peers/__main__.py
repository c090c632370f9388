"""Our reconstruction beside its published peers: same densities, same inputs, one process.

python -m benchmarks.peers --data SHARED/data --network cifar100_resnet20 --store peers.jsonl
python -m benchmarks.peers --data SHARED/data --network minilm --weights FOLDER
python -m benchmarks.peers --network decoder --weights decoder.safetensors
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import sparsemend as sm
from benchmarks._store import Store
from benchmarks.peers import decoder, images, sentences
from benchmarks.peers._problem import Problem
from benchmarks.peers.alps import alps
from benchmarks.peers.obc import obc, obc_sequential
from benchmarks.peers.sparsegpt import sparsegpt
from benchmarks.peers.wanda import wanda
from sparsemend.execution.batches import cut
from sparsemend.layers import surroundings
from sparsemend.patterns import FREE
from sparsemend.repairs import parse_repair, reconstruction

ENDINGS = ("none", "batchnorm")
# What the papers do after pruning; the sequential variant has no paper of its own.
PUBLISHED = {"sparsegpt": "none", "obc": "batchnorm"}
OURS, ALONE = "reconstruct", "reconstruct-alone"
PEERS = {"wanda": wanda, "sparsegpt": sparsegpt, "alps": alps, "obc": obc}
METHODS = ("magnitude", *PEERS, "obc-sequential", ALONE, OURS)
# Those that can keep n of every m.
PATTERNED = ("magnitude", "sparsegpt", ALONE, OURS)
UNIT = "sparsegpt"


def run(problem: Problem, method: str, sparsity: float) -> dict[str, Any]:
    """Prune by one method; seconds, and by ending how good the network is then."""
    layers = sm.discover(
        problem.dense, problem.inputs[0], exclude=problem.exclude, pattern=problem.pattern
    )
    allocation = sm.allocate(problem.dense, sparsity, problem.rule, layers=layers)
    start = _now()
    model, masks = _prune(problem, method, sparsity, layers, allocation)
    result: dict[str, Any] = {**_elapsed(start)}
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    own = method in (OURS, ALONE) and problem.own_rule is not None
    assert sum(kept.values()) == sum(allocation.values()), "every method keeps as much"
    assert own or kept == dict(allocation), "every method keeps exactly what was allocated"
    result["none"] = problem.measure(model)
    if method != OURS and any(isinstance(module, _BatchNorm) for module in model.modules()):
        start = _now()
        sm.recalibrate(model, problem.inputs, progress=False)
        seconds = _elapsed(start)
        result["batchnorm"] = {**problem.measure(model), **seconds}
    return result


def _prune(
    problem: Problem,
    method: str,
    sparsity: float,
    layers: sm.LayerSet,
    allocation: Mapping[str, int],
) -> tuple[nn.Module, Mapping[str, Tensor]]:
    dense, inputs = problem.dense, problem.inputs
    if method in (OURS, ALONE):
        judges = parse_repair(problem.own_repair).judges
        with _without_shortcuts(method == ALONE):
            done = sm.compress(
                dense,
                inputs,
                sparsity,
                rule=problem.own_rule or problem.rule,
                mask="gradual",
                repair=problem.own_repair,
                judge=problem.judge,
                exclude=problem.exclude,
                pattern=problem.pattern,
                distill=problem.own_distill,
                # Where nothing is chosen by it, its own comparison is not part of the method: as
                # little of it as there is.
                heldout=(problem.judging or None) if judges else [cut(problem.heldout[0], 0, 1)],
                progress=False,
            )
        return done.model, done.masks
    if method == "magnitude":
        model = sm.prune(dense, allocation, pattern=problem.pattern)
        return model, sm.find_masks(model, layers=layers)
    model = copy.deepcopy(dense)
    if method == "obc-sequential":
        return model, obc_sequential(model, inputs, layers, allocation, dense)
    return model, PEERS[method](model, inputs, layers, allocation)


@contextmanager
def _without_shortcuts(left_out: bool) -> Iterator[None]:
    """Let every layer aim at its own dense outputs, whatever it is added to."""

    def alone(layers: sm.LayerSet) -> dict[str, Any]:
        found = surroundings(layers)
        return {name: dataclasses.replace(x, shortcut=None) for name, x in found.items()}

    used = alone if left_out else surroundings
    with mock.patch.object(reconstruction, "surroundings", used):
        yield


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _elapsed(start: tuple[float, float]) -> dict[str, float]:
    wall, cpu = _now()
    return {"seconds": wall - start[0], "cpu_seconds": cpu - start[1]}


def rows(problem: Problem, results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Lines of the table from the results by method; of two endings a * marks the better one."""
    unit = results[UNIT]["cpu_seconds"]
    lines: list[tuple[str, ...]] = []
    for method, result in results.items():
        endings = {ending: result[ending] for ending in ENDINGS if ending in result}
        best = max(endings, key=lambda ending: endings[ending].get(problem.best, 0))
        for ending, found in endings.items():
            cpu = result["cpu_seconds"] + found.get("cpu_seconds", 0.0)
            published = problem.best and PUBLISHED.get(method) == ending
            values = {name: x.text(found[name]) for name, x in problem.figures.items()}
            if problem.best and ending == best:
                values[problem.best] += "*"
            ended = ending + (" (as published)" if published else "")
            seconds = (f"{cpu:.0f}", f"{cpu / unit:.2f}")
            lines.append((method, ended, *values.values(), *seconds))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the store lacks, and print a table for every network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(), help="folder with weights/ and images")
    parser.add_argument("--network", nargs="+", default=["cifar100_resnet20"])
    parser.add_argument("--weights", type=Path, help="of minilm, a folder; of decoder, a file")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.9])
    parser.add_argument("--method", nargs="+", choices=METHODS, help="default: by network")
    parser.add_argument("--pattern", default=FREE.name, help=f"n:m: {', '.join(PATTERNED)} alone")
    parser.add_argument("--rule", help="of our method, where it is not that of all others")
    parser.add_argument("--repair", default=OURS, help="of our method")
    parser.add_argument("--distill", type=int, help="steps of our repair, where it trains")
    parser.add_argument("--calibration-size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("peers.jsonl"))
    options = parser.parse_args(arguments)

    store = Store(options.store)
    for network in options.network:
        problem = dataclasses.replace(
            load(options, network),
            pattern=options.pattern,
            own_rule=options.rule,
            own_repair=options.repair,
            own_distill=options.distill,
        )
        titles = [figure.title for figure in problem.figures.values()]
        header = ("network", "sparsity", "method", "ending", *titles, "seconds", "× SparseGPT")
        cell = {"network": network, "method": "dense"}
        measured = store.compute(cell, partial(problem.measure, problem.dense))
        dense = (f"{x.title} {x.text(measured[name])}" for name, x in problem.figures.items())
        print(f"\n{network}, dense: {', '.join(dense)}\n\n| {' | '.join(header)} |")
        print("|---" * len(header) + "|", flush=True)
        for sparsity in options.sparsity:
            results = {}
            for method in dict.fromkeys((UNIT, *(options.method or problem.methods))):
                if options.pattern != FREE.name and method not in PATTERNED:
                    continue
                cell: dict[str, Any] = {
                    "network": network,
                    "sparsity": sparsity,
                    "method": method,
                    "calibration_size": options.calibration_size,
                    "seed": options.seed,
                }
                if options.pattern != FREE.name:
                    cell["pattern"] = options.pattern
                if method in (OURS, ALONE) and (options.rule or options.repair != OURS):
                    cell |= {"rule": options.rule, "repair": options.repair}
                if method in (OURS, ALONE) and options.distill is not None:
                    cell["distill"] = options.distill
                results[method] = store.compute(cell, partial(run, problem, method, sparsity))
            for line in rows(problem, results):
                print(f"| {network} | {sparsity:g} | {' | '.join(line)} |", flush=True)


def load(options: argparse.Namespace, network: str) -> Problem:
    """The problem of a name."""
    size, seed = options.calibration_size, options.seed
    if network == sentences.NAME:
        return sentences.load(options.data, options.weights or Path(network), size, seed)
    if network == decoder.NAME:
        return decoder.load(options.weights or Path(f"{network}.safetensors"), size, seed)
    return images.load(options.data, network, size, seed)


if __name__ == "__main__":
    main()
