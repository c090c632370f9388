"""sparsemend compress: the whole job, from a dense network to a sparse checkpoint."""

from __future__ import annotations

import copy
import dataclasses
import math
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

import sparsemend as sm
from sparsemend.allocation import Densities, load_rule
from sparsemend.cli._command import Given, command
from sparsemend.cli._options import (
    DATA,
    LOADING,
    MODEL,
    NO_REPORT,
    OFFLOAD,
    REPORT,
    WEIGHTS,
)
from sparsemend.cli._output import check_out, print_json, report_path
from sparsemend.cli._source import Source, describe_sizes, load_source
from sparsemend.execution.batches import cut
from sparsemend.exports.exporting import size_of
from sparsemend.files import check_folder
from sparsemend.masks import apply_masks
from sparsemend.models.weights import added_biases
from sparsemend.recipe import Recipe, defaults, says_itself
from sparsemend.recipe.options import (
    BUDGET,
    CALIBRATION_SIZE,
    DISTILL,
    EXCLUDE,
    HELDOUT_SIZE,
    INCLUDE,
    JUDGE,
    LIMIT,
    MASK,
    NEW_BIASES,
    OUTPUT,
    PATTERN,
    RECIPE,
    REPAIR,
    RULE,
    SCOPE,
    SEED,
    SPARSITY,
    TARGETS,
    Option,
)
from sparsemend.reports import Compression, other_rules
from sparsemend.sweeps.inputs import sizes_of
from sparsemend.targets import read_target
from sparsemend.verbs.compression import PRETRAINED_FACTS
from sparsemend.verbs.screen import as_text, first_screen

# Part of the time for all that measuring accuracy may take, for three networks.
_TESTING, _EVALUATIONS = 0.15, 3


@command(
    MODEL,
    DATA,
    SPARSITY,
    *TARGETS,
    WEIGHTS,
    RULE,
    MASK,
    REPAIR,
    SCOPE,
    BUDGET,
    JUDGE,
    OUTPUT,
    NEW_BIASES,
    INCLUDE,
    EXCLUDE,
    PATTERN,
    DISTILL,
    CALIBRATION_SIZE.but(
        help=f"Unlabelled training inputs to use; default {defaults.CALIBRATION_SIZE} "
        f"({defaults.PLANNED_CALIBRATION_SIZE:,} where a time is planned for), or what there is."
    ),
    HELDOUT_SIZE,
    Option("flip", bool, "Add mirrored copies of the calibration images.", False),
    SEED,
    Option("plan", Path, "Do again what an earlier compress --json, in this file, has planned."),
    Option(
        "out",
        Path,
        "Write the sparse network here: FILE.safetensors, or a folder for from_pretrained.",
    ),
    Option("bench", bool, "Time one input on the sparse runtime and on dense ones.", False),
    REPORT,
    NO_REPORT,
    LIMIT,
    *LOADING,
    OFFLOAD,
)
def compress(given: Given) -> None:
    """Prune, repair, compare, evaluate and save.

    Example: sparsemend compress --model digits --data digits --sparsity 0.9 --out s.safetensors
    """
    out = given.out
    in_folder = _check_out(out, given)
    beside = None if out is None else out.with_name(f"{out.name if in_folder else out.stem}.html")
    page = report_path(given.report, given.no_report, beside)
    recipe = {**given.only(RECIPE), "rule": _rule(given.rule)}
    targets = given.only(TARGETS)
    # A bad one is refused before any work.
    plan = None if given.plan is None else sm.Plan.load(given.plan)
    if plan is not None and given.pattern == PATTERN.default:
        recipe[PATTERN.name] = plan.pattern
    said_by = says_itself(recipe["rule"], recipe[PATTERN.name])
    checked = Recipe(**recipe, target=read_target(given.sparsity, said_by, **targets))
    source = load_source(given)
    if in_folder:
        _check_pretrained(source, given)
    seed = given.seed
    most = defaults.PLANNED_CALIBRATION_SIZE if checked.planned else defaults.CALIBRATION_SIZE
    size, heldout_size = sizes_of(
        source.data, given.calibration_size, given.heldout_size, most=most
    )
    unseen = source.heldout(heldout_size, size, seed)
    timed = checked.planned and plan is None
    clock = Clock(checked.limit.seconds if timed else math.inf)
    # First, so that a bad --limit costs no work.
    dense, limit = _dense_top1(source, given.limit, clock)
    seen = source.calibration(size, seed, flip=given.flip)
    if timed:
        recipe["budget"] = f"{max(1, clock.left_for_work()):.0f}s"
    result = sm.compress(
        source.model,
        seen,
        heldout=unseen,
        plan=plan,
        offload=source.offload,
        **targets,
        **recipe,
    )
    pruned = copy.deepcopy(source.model)
    apply_masks(pruned, result.masks, result.layers)
    top1 = {
        "top1_dense": dense,
        "top1_pruned": _top1(source, pruned, limit),
        "top1_repaired": _top1(source, result.model, limit),
    }
    facts: dict[str, Any] = {**top1, "model": given.weights.stem if given.weights else given.model}
    if dense is not None:
        facts["tested"] = source.tested(limit)
    if in_folder:
        beside_it = (source.loaded.tokenizer, source.loaded.processor)
        result.save_pretrained(out, *(part for part in beside_it if part is not None))
    elif out is not None:
        _save(result, source, given, size)
    timing = None
    if given.bench:
        timing = sm.bench(copy.deepcopy(result.model).cpu(), cut(seen[0], 0, 1))
    values = result.to_dict() | facts | {"seed": seed, "calibration_size": size}
    for key, path in (("out", out), ("report", page)):
        values[key] = None if path is None else str(path)
    values["bytes"] = None if out is None else size_of(out)
    values["timing"] = None if timing is None else timing.to_dict()
    values["next"] = _next(given, source, in_folder)
    if page is not None:
        others = other_rules(
            source.model,
            result.allocation,
            diagnosis=result.diagnosis,
            layers=result.layers,
            target=result.target,
            multiplications=result.multiplications,
        )
        diagnoses = [] if result.diagnosis is None else [result.diagnosis]
        compression = dataclasses.replace(Compression.from_dict(values), timing=timing)
        sm.report(compression, *others, *diagnoses).save(page)
    if given.json:
        print_json(values)
        return
    print(result)
    if result.search is not None:
        print(result.search)
    print(describe_sizes(source.data, size, heldout_size))
    print(f"\n{as_text(first_screen(values))}")
    if timing is not None:
        print(f"\n{timing}")


def _check_out(out: Path | None, given: Given) -> bool:
    """Refuse what could not be written; whether it is a folder, as transformers keeps networks."""
    if out is None or (out.suffix and not out.is_dir()):
        check_out(out, ".safetensors")
        return False
    check_folder(out, "the folder of --out")
    # The dense network may be there.
    if any(out.glob("*")) and not (out / PRETRAINED_FACTS).exists():
        raise sm.SparsemendError(
            "the folder of --out holds other files", str(out), "a new or an empty folder"
        )
    if given.new_biases:
        raise sm.SparsemendError(
            "from_pretrained would not read the biases that --new-biases adds",
            str(out),
            "a file that ends in .safetensors",
        )
    return True


def _check_pretrained(source: Source, given: Given) -> None:
    if not hasattr(source.model, "save_pretrained"):
        raise sm.SparsemendError(
            "--out has another ending",
            str(given.out),
            ".safetensors; folders are for networks of transformers",
        )


def _rule(text: str | None) -> str | sm.Allocation | Mapping[str, float] | None:
    """The name of a rule, or an allocation or densities from their file."""
    if text is None or not text.endswith(".json"):
        return text
    found = load_rule(Path(text))
    return found.given if isinstance(found, Densities) else found


def _top1(source: Source, network: nn.Module, limit: int | None) -> float | None:
    """Accuracy on the test split; None where there are no labels."""
    if not source.is_labelled:
        return None
    return sm.evaluate(network, source.test(limit), offload=source.offload).top1


def _dense_top1(source: Source, limit: int | None, clock: Clock) -> tuple[float | None, int | None]:
    """Accuracy of the dense network, and on how many test inputs there is time to measure."""
    if source.is_labelled and limit is None and math.isfinite(clock.seconds):
        some = min(source.batch_size, source.data.test_size)
        start = time.perf_counter()
        _top1(source, source.model, some)
        each = (time.perf_counter() - start) / some
        affordable = int(_TESTING * clock.seconds / _EVALUATIONS / each)
        if affordable < source.data.test_size:
            limit = max(some, round(affordable, 1 - len(str(affordable))))
    return clock.timed(lambda: _top1(source, source.model, limit)), limit


class Clock:
    """What is left of the time for all.

    Parameters
    ----------
    seconds
        The time; it runs from now.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._start, self._evaluation = seconds, time.perf_counter(), 0.0

    def timed(self, evaluate: Callable[[], float | None]) -> float | None:
        """Evaluate once, and so learn how long the others will take."""
        start = time.perf_counter()
        found = evaluate()
        self._evaluation = time.perf_counter() - start
        return found

    def left_for_work(self) -> float:
        """Seconds, less what the evaluations to come will take."""
        spent = time.perf_counter() - self._start
        return self.seconds - spent - (_EVALUATIONS - 1) * self._evaluation


def _next(given: Given, source: Source, in_folder: bool) -> str:
    """One command to go on with."""
    if given.out is None:
        return "the same with --out sparse.safetensors, to keep the network"
    said = dict(given.values)
    if in_folder:
        said |= {MODEL.name: f"hf:{given.out}", WEIGHTS.name: None}
    else:
        said[WEIGHTS.name] = given.out
    words = ["sparsemend", "evaluate" if source.is_labelled else "bench"]
    offload = (OFFLOAD,) if source.is_labelled else ()
    for option in (MODEL, WEIGHTS, DATA, *LOADING, *offload):
        value = said[option.name]
        if value == option.default:
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [option.spelling, shlex.quote(str(one))]
    return " ".join(words)


def _save(result: sm.CompressionResult, source: Source, given: Given, size: int) -> None:
    """Write the network with what a later load needs, and how it was made."""
    metadata = source.loaded.metadata
    facts: dict[str, object] = {
        "architecture": metadata.get("architecture", given.model),
        "calibration_size": size,
        "seed": given.seed,
    }
    for key, values in (("mean", source.data.mean), ("std", source.data.std)):
        if values is not None:
            facts[key] = ",".join(map(repr, values))
    # A network that was compressed before may have biases that the plain one lacks.
    earlier = added_biases(metadata, source=source.loaded.name)
    biases = dict.fromkeys((*earlier, *result.added_biases))
    dataclasses.replace(result, added_biases=tuple(biases)).save(given.out, facts)
