"""What public functions say to bad input, and that it changes nothing: one table.

Arguments of another kind altogether are the subject of ``tests/test_boundary.py``.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.faults.networks import Outer, edited, lookup, nan, small_network
from torch import nn

import sparsemend as sm

INF, NAN, HUGE = math.inf, math.nan, 2**63

# Name → (what is called with good arguments at hand, what the error says).
CASES = {}


def case(name, call, text):
    assert name not in CASES, name
    CASES[name] = (call, text)


def sweep(g, model=None, data=None, sparsities=0.5, **options):
    given = {"rules": "erk", "repairs": "none"} | options
    return sm.sweep(
        g.model if model is None else model,
        g.batches if data is None else data,
        sparsities,
        **given,
    )


def compress(g, model=None, batches=None, sparsity=0.5, rule="erk", repair="variance", **options):
    batches = g.batches if batches is None else batches
    return sm.compress(model or g.model, batches, sparsity, rule, repair=repair, **options)


# Functions of a network and of batches.
RUNS = {
    "discover": lambda _, model, batches: sm.discover(model, next(iter(batches), None)),
    "calibrate": lambda _, model, batches: sm.calibrate(model, batches),
    "compress": lambda _, model, batches: sm.compress(model, batches, 0.5, "erk", None, "variance"),
    "in place": lambda _, model, batches: sm.compress(
        model, batches, 0.5, "erk", None, "variance", inplace=True
    ),
    "repair": lambda g, model, batches: sm.repair(g.pruned, model, batches),
    "recalibrate": lambda _, model, batches: sm.recalibrate(model, batches),
    "ema": lambda _, model, batches: sm.recalibrate(model, batches, "ema"),
    "agreement": lambda g, model, batches: sm.agreement(g.pruned, model, batches),
    "sweep": lambda _, model, batches: sm.sweep(model, batches, 0.5, rules="erk", repairs="none"),
}
BATCHES = {
    "no batches": (lambda _: [], "is empty.*a generator can be used only once"),
    "a generator at its end": (lambda _: iter(()), "is empty|can be iterated only once"),
    "labelled": (lambda g: g.labelled, r"carries labels: a pair of .*int64 \[8\].*unlabelled"),
    "no inputs": (lambda g: [g.batches[0][:0]], "holds no inputs|is empty"),
    "NaN": (lambda g: [g.batches[0] * NAN], "holds NaN or infinite values.*preprocessing"),
    "one infinity": (lambda g: [torch.cat([g.batches[0], g.batches[0] / 0])], "NaN or infinite"),
    "sparse": (lambda g: [g.batches[0].to_sparse()], "holds a sparse tensor.*use .to_dense"),
    "meta": (lambda g: [g.batches[0].to("meta")], "holds a tensor without values"),
    "another shape": (lambda g: [g.batches[0].squeeze(1)[:, :5]], r"cannot run on this batch \(fl"),
    "integers": (lambda g: [g.batches[0].long()], r"cannot run on this batch \(int64 \[\d, 1, 8"),
    "complex": (lambda g: [g.batches[0] * 1j], r"cannot run on this batch \(complex64"),
    "a list of numbers": (lambda _: [[1.5, 2.5]], r"batch \(without tensors\)|no inputs left"),
    "texts": (lambda _: ["a"], r"batch \(without tensors\)|no inputs left"),
    "too many arguments": (lambda g: [(*g.batches,)], "cannot run on this batch"),
    "keywords": (lambda g: [{"z": g.batches[0]}], "cannot run on this batch.*'z'"),
}
for run, function in RUNS.items():
    for name, (make, text) in BATCHES.items():
        if run == "discover" and name in ("no batches", "a generator at its end"):
            continue
        case(
            f"{run}: {name}",
            lambda g, f=function, m=make: f(g, small_network(), m(g)),
            text,
        )

# Finite arithmetic begins with a finite network.
BROKEN = {
    "NaN weight": (lambda m: m[3].weight[0, 0].fill_(NAN), "layer '3' has NaN or infinite weights"),
    "infinite bias": (lambda m: m[3].bias.fill_(INF), "layer '3' has NaN or infinite bias.*6 of 6"),
    "NaN mean": (lambda m: m[1].running_mean.fill_(NAN), "layer '1' has NaN or infinite running m"),
    "negative variance": (lambda m: m[1].running_var.fill_(-1), "'1' has negative running varian"),
}
for run in RUNS:
    for name, (edit, text) in BROKEN.items():
        if run != "agreement":  # which measures networks as they are, by their outputs
            case(
                f"{run}: {name}",
                lambda g, f=RUNS[run], e=edit: f(g, edited(e), g.batches),
                text,
            )
OUTER = {
    "a forward that raises": (lookup, r"KeyError: 8 \(networks.py:\d+, in lookup\)"),
    "outputs of NaN": (nan, "the outputs of the network are not finite: 40 of 40"),
    "no output": (lambda _: None, "there is nothing to judge"),
    "a text as output": (lambda _: "x", "there is nothing to judge"),
}
for name, (after, text) in OUTER.items():
    case(f"compress: {name}", lambda g, a=after: compress(g, Outer(a)), text)
    case(f"sweep: {name}", lambda g, a=after: sweep(g, Outer(a)), text)
    case(f"agreement: {name}", lambda g, a=after: sm.agreement(g.model, Outer(a), g.batches), text)
case(
    "evaluate: a forward that raises",
    lambda g: sm.evaluate(Outer(lookup), g.labelled),
    "KeyError: 8",
)
case(
    "evaluate: NaN",
    lambda g: sm.evaluate(Outer(nan), g.labelled),
    "outputs of the network are not finite: 40",
)

# Counts.
COUNTS = {
    "updates": lambda g, n: sm.recalibrate(small_network(), g.batches, "ema", updates=n),
    "positions_per_batch": lambda g, n: sm.calibrate(g.model, g.batches, positions_per_batch=n),
    "calibration size": lambda g, n: g.images.calibration(n),
    "held-out size": lambda g, n: g.images.heldout(n, calibration_size=4),
    "batch_size": lambda g, n: g.images.test_batches(n),
    "limit": lambda g, n: g.images.test(n),
    "num_classes": lambda _, n: sm.models.create("digits", n),
    "width": lambda _, n: sm.models.create("digits", width=n),
    "workers": lambda g, n: sweep(g, workers=n),
    "calibration_size": lambda g, n: sweep(g, calibration_size=n),
}
for name, call in COUNTS.items():
    for count in (0, -1, HUGE):
        case(
            f"{name}={count}",
            lambda g, c=call, n=count: c(g, n),
            f"{name} is out of range: got {count}; allowed: an integer of at",
        )
for count in (-1, HUGE):
    case(
        f"max_fan_in={count}",
        lambda g, n=count: sm.calibrate(g.model, g.batches, max_fan_in=n),
        f"max_fan_in is out of range: got {count}",
    )
    case(
        f"heldout_size={count}",
        lambda g, n=count: sweep(g, heldout_size=n),
        f"heldout_size is out of range: got {count}",
    )
    case(
        f"seed={count}", lambda g, n=count: g.images.calibration(4, seed=n), "seed is out of range"
    )
    case(f"seeds={count}", lambda g, n=count: sweep(g, seeds=[0, n]), "seed is out of range")
    case(
        f"ablate: seeds={count}",
        lambda g, n=count: sm.ablate(
            g.model, g.batches, 0.5, force="first", source="lamp", seeds=n
        ),
        "seed is out of range",
    )

# Fractions.
for value in (1, 1.5, -0.1, NAN, INF, -INF):
    for name, call in {
        "allocate": lambda g, s: sm.allocate(g.model, s),
        "compress": lambda g, s: compress(g, sparsity=s),
        "sweep": lambda g, s: sweep(g, sparsities=s),
    }.items():
        case(
            f"{name}: sparsity={value}",
            lambda g, c=call, v=value: c(g, v),
            "sparsity is out of range: got .* in \\[0, 1\\)",
        )
# Budgets.
TARGETS = {
    "target_flops": (0.0, -0.5, 1.1, NAN, INF),
    "target_latency": ("2", "ms", "-1ms", "0ms", "2 parsecs", "nan ms", ""),
    "target_size": ("100", "KiB", "-1KiB", "0B", "1KiBps", "inf MB", ""),
}
for name, values in TARGETS.items():
    for value in values:
        case(
            f"{name}={value!r}",
            lambda g, n=name, v=value: sm.compress(g.model, g.batches, rule="erk", **{n: v}),
            f"{name} is not understood: got",
        )
BUDGETS = {
    "no budget": (
        lambda g: sm.compress(g.model, g.batches),
        "not said once: got 'nothing'; allowed: exactly one of sparsity, target_flops, target_lat",
    ),
    "two budgets": (
        lambda g: sm.allocate(g.model, 0.5, target_flops=0.5, example=g.batches[0]),
        "not said once: got 'sparsity and target_flops'; .* leave one out",
    ),
    "two targets": (
        lambda g: sm.compress(g.model, g.batches, target_flops=0.5, target_size="1KiB"),
        "not said once: got 'target_flops and target_size'",
    ),
    "a target and an allocation": (
        lambda g: sm.compress(g.model, g.batches, rule=g.allocation, target_flops=0.5),
        "an allocation says itself how many weights are kept: got 'target_flops'",
    ),
    "a target without an example": (
        lambda g: sm.allocate(g.model, target_size="1KiB"),
        "target_size needs an example",
    ),
    "a target that is too small": (
        lambda g: sm.compress(g.model, g.batches, rule="erk", target_flops=1e-9),
        r"target_flops cannot be reached.*allowed: at least 0\.0",
    ),
    "a size that is too small": (
        lambda g: sm.allocate(g.model, target_size="1B", example=g.batches[0]),
        "target_size cannot be reached.*allowed: at least .* KiB",
    ),
}
for name, (call, text) in BUDGETS.items():
    case(name, call, text)
for value in (0.0, 1.5, -1.0, NAN, INF):
    case(
        f"momentum={value}",
        lambda g, v=value: sm.recalibrate(small_network(), g.batches, "ema", momentum=v),
        "momentum is out of range: got .* above 0, at most 1",
    )
    case(
        f"densities={value}",
        lambda g, v=value: sm.calibrate(g.model, g.batches, densities=[v]),
        "densities are not a grid",
    )
    case(
        f"diagnose: densities={value}",
        lambda g, v=value: sm.diagnose(g.model, g.calibration, densities=[0.5, v]),
        "densities are not a grid",
    )
for text in ("", "a", "0.9:0.8:0.1", "0.1:0.9:0", "0:0.9:1e-9", "nan", "0.1:0.2", "0.5:0.6:0.07"):
    case(
        f"sparsities={text!r}",
        lambda g, t=text: sweep(g, sparsities=t),
        "sparsity is neither a number nor a range|this range of sparsities cannot be",
    )

# Names.
NAMES = {
    "rule": (lambda g, n: sm.allocate(g.model, 0.5, n), "unknown allocation rule: got 'nope'"),
    "rule of compress": (lambda g, n: compress(g, rule=n), "unknown allocation rule"),
    "forced rule": (lambda g, _: sm.allocate(g.model, 0.5, "erk[first=nope]"), "unknown alloc"),
    "no layer": (lambda g, _: sm.allocate(g.model, 0.5, "erk[x.*=lamp]"), "no layer of the netw"),
    "half a rule": (lambda g, _: sm.allocate(g.model, 0.5, "erk["), "unknown allocation rule"),
    "auto": (lambda g, _: sm.allocate(g.model, 0.5, "auto"), "rule 'auto' is a search that rep"),
    "option": (lambda g, n: sm.allocate(g.model, 0.5, "erk", **{n: 1}), "unknown option of rule '"),
    "mask": (lambda g, n: sm.prune(g.model, g.allocation, n), "unknown mask: got 'nope'"),
    "mask of compress": (lambda g, n: compress(g, mask=n), "unknown mask"),
    "mask of diagnose": (lambda g, n: sm.diagnose(g.model, g.calibration, mask=n), "unknown mask"),
    "lone gradual": (lambda g, _: sm.prune(g.model, g.allocation, "gradual"), "gradual"),
    "no moments": (lambda g, _: sm.prune(g.model, g.allocation, "activation"), "calibration"),
    "repair": (lambda g, n: sm.repair(g.pruned, g.model, g.batches, n), "unknown repair.*'nope'"),
    "repair of compress": (lambda g, n: compress(g, repair=n), "unknown repair"),
    "repair of diagnose": (lambda g, n: sm.diagnose(g.model, g.calibration, n), "unknown repair"),
    "half a repair": (lambda g, _: compress(g, repair="variance+"), "unknown repair"),
    "order": (lambda g, _: compress(g, repair="batchnorm+variance"), "batchnorm\\+variance"),
    "scope": (lambda g, n: compress(g, scope=n), "unknown repair scope: got 'nope'; allowed: seq"),
    "judge": (lambda g, n: compress(g, judge=n), "unknown judge: got 'nope'; allowed: "),
    "output": (lambda g, n: compress(g, output=n), "output.*nope"),
    "judge of repair": (lambda g, _: sm.repair(g.pruned, g.model, g.batches, judge=len), "len"),
    "mode": (lambda g, n: sm.recalibrate(small_network(), g.batches, n), "unknown BatchNorm recal"),
    "weighting": (lambda g, n: sm.diagnose(g.model, g.calibration, weighting=n), "unknown weight"),
    "include": (lambda g, n: sm.discover(g.model, include=n), "no layer of the network.*'nope'"),
    "exclude": (lambda g, _: compress(g, exclude="*"), "no layer is left to prune"),
    "layer": (lambda g, n: g.calibration.layers[n], "no prunable layer of this name: got 'nope'"),
    "model": (lambda _, n: sm.models.load(n), "unknown model: got 'nope'; allowed: cifar_"),
    "model to create": (lambda _, n: sm.models.create(n), "unknown model"),
    "factory": (lambda _, n: sm.models.load(f"{n}:x"), "cannot be imported: ModuleNotFoundError"),
    "no factory": (lambda _, n: sm.models.load(f"{n}:"), "model is written wrong: got 'nope:'"),
    "measure": (lambda g, n: g.sweep.transitions(n), "measure is of the wrong kind: got 'nope'"),
    "setting": (lambda g, n: sm.SweepResult.load(g.folder / "s.sqlite", **{n: 1}), "no such sett"),
    "figure": (lambda g, n: sm.report(g.diagnosis).save_figures("f", n), "nope"),
    "ablate option": (lambda g, n: sm.ablate(g.model, g.batches, 0.5, force="first", source="erk",
                                             **{n: 1}), "ablate has no such option: got 'nope'"),
    "force": (lambda g, n: sm.ablate(g.model, g.batches, 0.5, force=n, source="lamp"), "no layer"),
    "source": (lambda g, n: sm.ablate(g.model, g.batches, 0.5, force="first", source=n), "unknown"),
}  # fmt: skip
for name, (call, text) in NAMES.items():
    case(f"name: {name}", lambda g, c=call: c(g, "nope"), text)

# What does not go together.
OTHER = nn.Sequential(nn.Linear(6, 3))
LINEAR = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
PAIRS = {
    "another network's calibration": (
        lambda g: sm.diagnose(OTHER, g.calibration), "the calibration is of another network"),
    "another network's diagnosis": (
        lambda g: sm.allocate(OTHER, 0.5, "rr", diagnosis=g.diagnosis), "the diagnosis names lay"),
    "another network's allocation": (
        lambda g: sm.prune(OTHER, g.allocation), "the allocation names layers that the model"),
    "another dense network": (
        lambda g: sm.repair(g.pruned, OTHER, [torch.ones(2, 6)]), "do not belong together"),
    "another network's layers": (
        lambda g: sm.allocate(OTHER, 0.5, layers=g.calibration.layers), "'0'"),
    "merged calibrations": (
        lambda g: g.calibration.merge(sm.calibrate(OTHER, [torch.ones(2, 6)])), "different netw"),
    "rr without a diagnosis": (lambda g: sm.allocate(g.model, 0.5, "rr"), "needs a diagnosis|diag"),
    "an allocation of another sparsity": (
        lambda g: compress(g, sparsity=0.9, rule=g.allocation), "is of another sparsity"),
    "an allocation of shares": (lambda g: sm.prune(g.model, {"0": 0.5}), "cannot keep this many"),
    "an allocation of flags": (lambda g: sm.prune(g.model, {"0": True}), "cannot keep this many"),
    "a negative count": (lambda g: sm.prune(g.model, {"0": -1}), "layer '0' cannot keep.*got -1"),
    "too large a count": (lambda g: sm.prune(g.model, {"0": 37}), "layer '0' cannot keep.*from 0"),
    "an infeasible sparsity": (lambda g: sm.allocate(g.model, 0.9999), "largest feasible sparsity"),
    "a budget without a search": (lambda g: compress(g, budget=3), "budget"),
    "a budget of nothing": (lambda g: compress(g, rule="auto", budget=0), "budget.*got 0"),
    "a budget of words": (lambda g: compress(g, rule="auto", budget="soon"), "budget.*'soon'"),
    "an endless budget": (lambda g: compress(g, rule="auto", budget=INF), "budget.*inf"),
    "gradual without a fit": (lambda g: compress(g, mask="gradual"), "gradual"),
    "no BatchNorm": (lambda g: compress(g, edited(lambda m: m.pop(1)), repair="batchnorm"),
                     "the network has no BatchNorm with running statistics"),
    "heldout that is empty": (lambda g: compress(g, heldout=[]), "heldout is empty"),
    "heldout with labels": (lambda g: compress(g, heldout=g.labelled), r"heldout\[0\] carries lab"),
    "one input in a batch of an average": (
        lambda _: sm.recalibrate(LINEAR, [torch.ones(1, 3)], "ema"), "single value per channel"),
    "no layers": (lambda g: sm.calibrate(nn.Sequential(nn.ReLU()), g.batches), "no prunable layer"),
    "layers of size zero": (lambda _: sm.discover(nn.Sequential(nn.Linear(64, 0))), "no prunable"),
    "lazy layers": (lambda g: sm.calibrate(nn.Sequential(nn.LazyLinear(3)), g.batches), "lazy"),
    "networks that need names": (lambda g: sweep(g, {"a": 3}), "networks are given by name"),
    "no networks": (lambda g: sweep(g, {}, {}), "there is no network|is of the wrong kind"),
    "data by other names": (
        lambda g: sweep(g, {"a": g.model}, {"b": g.images}), "different names: got \\['b'\\]"),
    "data that are no images": (lambda g: sweep(g, {"a": g.model}, {"a": 3}), "are no data"),
    "images and inputs": (lambda g: sweep(g, data=g.images, test=g.labelled), "heldout and test g"),
    "a function of the seed that fails": (
        lambda g: sweep(g, data=lookup), r"data\(0\) failed: TypeError"),
    "no rules": (lambda g: sweep(g, rules=[]), "the sweep has no rules"),
    "no sparsities": (lambda g: sweep(g, sparsities=[]), "the sweep has no sparsities"),
    "no seeds": (lambda g: sweep(g, seeds=[]), "the sweep has no seeds"),
    "test without labels": (lambda g: sweep(g, test=g.batches), r"test\[0\] has no labels"),
    "an empty test": (lambda g: sweep(g, test=[]), "test is empty"),
    "test of floating labels": (
        lambda g: sweep(g, test=[(g.batches[0], torch.ones(8))]), "labels of type torch.float32"),
    "two places to compute": (lambda g: sweep(g, workers=2, ray="local"), "exclude each other"),
    "labels of another number": (
        lambda g: sm.evaluate(g.model, [(g.batches[0], torch.arange(3))]), "labels of shape"),
    "labels below zero": (
        lambda g: sm.evaluate(g.model, [(g.batches[0], -torch.ones(8).long())]), "labels below 0"),
    "no label that counts": (
        lambda g: sm.evaluate(g.model, [(g.batches[0], -100 * torch.ones(8).long())]), "no label"),
    "no labels": (lambda g: sm.evaluate(g.model, g.batches), "has no labels"),
    "nothing to evaluate on": (lambda g: sm.evaluate(g.model, []), "labelled_batches is empty"),
    "an empty report": (lambda _: sm.report(), "at least one result"),
    "two compressions": (lambda g: sm.report(g.result, g.result), "shows one compression"),
    "allocations without layers": (lambda _: sm.Allocation({}, {}, "x"), "at least one layer"),
    "allocations of other names": (
        lambda _: sm.Allocation({"a": 1}, {0: 1}, "x"), "name different layers: got"),
    "an allocation out of bounds": (
        lambda _: sm.Allocation({"a": 3}, {"a": 2}, "x"), "kept count of layer 'a' is out of rang"),
    "means of another number": (
        lambda _: sm.data.load("digits", mean=[0.1, 0.2], std=[1, 1]).calibration(2), "1 channels"),
    "a mean without deviations": (lambda _: sm.data.load("digits", mean=[0.1]), "mean and std"),
    "deviations of zero": (lambda _: sm.data.load("digits", mean=[0], std=[0]), "positive numbers"),
    "means of NaN": (lambda _: sm.data.load("digits", mean=[NAN], std=[1]), "finite numbers"),
    "too many images": (lambda g: g.images.calibration(10**6), "calibration size.*got 1000000"),
    "overlapping images": (lambda g: g.images.heldout(1000, calibration_size=1000), "overlap"),
    "metadata that is no JSON": (
        lambda g: g.result.save("x.safetensors", {"x": object()}), "metadata 'x' cannot be stored"),
    "a judge that fails": (
        lambda g: compress(g, judge=lambda a, _: lookup(a)), r"judge '<lambda>' failed: KeyError:"),
    "a judge of one number": (
        lambda g: compress(g, judge=lambda a, b: (a - b).sum()), "no loss per sample: got \\[\\]"),
}  # fmt: skip
for name, (call, text) in PAIRS.items():
    case(name, call, text)

# Paths, to read and to write.
READERS = {
    "Diagnosis.load": sm.Diagnosis.load,
    "Allocation.load": sm.Allocation.load,
    "SweepResult.load": sm.SweepResult.load,
    "load_checkpoint": lambda path: sm.load_checkpoint(small_network(), path),
    "data.load": sm.data.load,
}
for name, read in READERS.items():
    for path in ("nowhere.json", "a\0b.json", "x" * 5000 + ".json", "."):
        case(
            f"{name}({path[:20]!r})",
            lambda _, r=read, p=path: r(p),
            "there is no|cannot be read|no file|does not exist|too long|an empty|ending: got",
        )
WRITERS = {
    ".json": lambda g, path: g.diagnosis.save(path),
    ".csv": lambda g, path: g.sweep.to_csv(path),
    ".html": lambda g, path: sm.report(g.diagnosis).save(path),
    ".safetensors": lambda g, path: g.result.save(path),
    ".sqlite": lambda g, path: sweep(g, store=path),
}
for ending, write in WRITERS.items():
    for path in ("nowhere/x", "a\0b", "x" * 5000, "/proc/x"):
        case(f"write {path[:20]!r}{ending}", lambda g, w=write, p=path + ending: w(g, p),
             "cannot (write|be) there|File name too long")  # fmt: skip
case("a diagnosis of another ending", lambda g: g.diagnosis.save("d.txt"), "ending: got 'd.txt'")
case(
    "figures in no folder", lambda g: sm.report(g.diagnosis).save_figures("/proc/x"), "cannot be m"
)

# Files that hold something else; each is written into an empty folder first.
JUNK = {
    "junk": b"junk", "nothing": b"", "bytes": b"\xff\xfe\0\x80", "a list": b"[]", "a number": b"3",
    "deep": b"[" * 100_000 + b"]" * 100_000,
}  # fmt: skip
FILES = {".json": sm.Diagnosis.load, ".npz": sm.Diagnosis.load, ".sqlite": sm.SweepResult.load,
         ".safetensors": READERS["load_checkpoint"], ".pt": READERS["load_checkpoint"]}  # fmt: skip


def diagnosis_with(g, **changes):
    return sm.Diagnosis.from_dict({**g.diagnosis.to_dict(), **changes})


DIAGNOSES = {
    "negative damage": {"raw": [[-1.0] * 24] * 3},
    "damage of texts": {"raw": [["a"] * 24] * 3},
    "damage of another shape": {"raw": [[0.0] * 24]},
    "densities above one": {"densities": [2.0] * 24},
    "densities that fall": {"densities": list(np.linspace(1, 0.01, 24))},
    "no densities": {"densities": [], "raw": [[]] * 3, "residual": [[]] * 3, "rr": [[]] * 3},
    "no layers": {"layers": [], "raw": [], "residual": [], "rr": []},
    "layers of numbers": {"layers": [1, 2, 3]},
    "two layers of one name": {"layers": ["a", "a", "b"]},
    "left out by word": {"left_out": {"0": "many"}},
    "a negative number of inputs": {"inputs": -1},
    "another format": {"format": "x"},
    "no layers at all": {"layers": None},
}
for name, changes in DIAGNOSES.items():
    case(f"a diagnosis with {name}", lambda g, c=changes: diagnosis_with(g, **c), "diagnosis")


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.filterwarnings("ignore:Casting complex values to real:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_error(good, unchanged, name):
    call, text = CASES[name]
    with unchanged(), pytest.raises(sm.SparsemendError, match=text) as caught:
        call(good)
    said = str(caught.value)
    assert len(said) < 2000
    assert "the error that this one was caused by" not in said


@pytest.mark.parametrize("ending", FILES)
@pytest.mark.parametrize("name", JUNK)
def test_files_that_hold_something_else(tmp_path, ending, name):
    path = tmp_path / f"file{ending}"
    path.write_bytes(JUNK[name])
    with pytest.raises(sm.SparsemendError) as caught:
        FILES[ending](path)
    assert str(path) in str(caught.value) or "diagnosis" in str(caught.value)
    assert "failed:" not in str(caught.value)
    assert "weights_only=False" not in str(caught.value)
    assert "allow_pickle=True" not in str(caught.value)
    assert path.read_bytes() == JUNK[name]


# Every function that runs a network, on one that fails in the middle.
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("error", [KeyError("k"), KeyboardInterrupt()])
def test_networks_are_as_they_were_after_a_failure(good, unchanged, run, error):
    model, calls = small_network(), []

    def fails(*_):
        calls.append(1)
        if len(calls) > 1:
            raise error

    handle = model[4].register_forward_hook(fails)
    expected = sm.SparsemendError if isinstance(error, Exception) else KeyboardInterrupt
    if run == "discover":  # which ends before
        calls += [1]
    with unchanged(model), pytest.raises(expected):
        RUNS[run](good, model, good.batches)
    handle.remove()


def test_a_checkpoint_that_does_not_fit_changes_nothing(unchanged, tmp_path):
    model = small_network()
    state = {key: value + 1 for key, value in model.state_dict().items()}
    state.pop("6.bias")
    safetensors.torch.save_file(state, tmp_path / "c.safetensors")
    with unchanged(model), pytest.raises(sm.SparsemendError, match=r"missing keys: 6\.bias"):
        sm.load_checkpoint(model, tmp_path / "c.safetensors")


def test_a_compression_from_a_file_that_cannot_be(good, tmp_path):
    from sparsemend.reports.sources import load_source

    values = good.result.to_dict()
    for changes, text in (
        ({"kl": NAN}, "kl"),
        ({"top1_dense": 5.0}, "top1_dense"),
        ({"agreement": -1}, "agreement"),
        ({"counts": 3}, "counts"),
        ({"heldout": "x"}, "heldout"),
        ({"tried": {"a": "b"}}, "tried"),
        ({"rule": 3}, "rule"),
    ):
        path = tmp_path / "c.json"
        path.write_text(json.dumps({**values, **changes}))
        with pytest.raises(sm.SparsemendError, match=text):
            load_source(path)


def test_the_table_is_long():
    assert len(CASES) >= 300
