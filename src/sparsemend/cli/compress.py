"""sparsemend compress: the whole job, from a dense network to a sparse checkpoint."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

from torch import nn

import sparsemend as sm
from sparsemend.cli._command import Given, command
from sparsemend.cli._options import (
    CALIBRATION,
    DATA,
    HELDOUT,
    LOADING,
    MODEL,
    NO_REPORT,
    REPORT,
    WEIGHTS,
)
from sparsemend.cli._output import check_out, percent, print_json, report_path
from sparsemend.cli._source import Source, load_source
from sparsemend.masks import apply_masks
from sparsemend.models.weights import added_biases
from sparsemend.recipe import Recipe
from sparsemend.recipe.options import (
    BUDGET,
    EXCLUDE,
    INCLUDE,
    JUDGE,
    LIMIT,
    MASK,
    NEW_BIASES,
    OUTPUT,
    RECIPE,
    REPAIR,
    RULE,
    SCOPE,
    SEED,
    SPARSITY,
    Option,
)
from sparsemend.reports import Compression, other_rules


@command(
    MODEL,
    DATA,
    SPARSITY,
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
    CALIBRATION,
    HELDOUT,
    Option("flip", bool, "Add mirrored copies of the calibration images.", False),
    SEED,
    Option("out", Path, "Write the sparse network here."),
    REPORT,
    NO_REPORT,
    LIMIT,
    *LOADING,
)
def compress(given: Given) -> None:
    """Prune, repair, compare, evaluate and save.

    Example: sparsemend compress --model digits --data digits --sparsity 0.9 --out s.safetensors
    """
    out = given.out
    check_out(out, ".safetensors")
    beside = None if out is None else out.with_suffix(".html")
    page = report_path(given.report, given.no_report, beside)
    recipe = {**given.only(RECIPE), "rule": _rule(given.rule)}
    Recipe(**recipe)  # a bad one is refused before any work
    source = load_source(given)
    seed = given.seed
    size, heldout_size = source.shares(given.calibration_size, given.heldout_size)
    unseen = source.heldout(heldout_size, size, seed)
    dense = _top1(source, source.model, given)  # first, so that a bad --limit costs no work
    seen = source.calibration(size, seed, flip=given.flip)
    result = sm.compress(source.model, seen, heldout=unseen, **recipe)
    pruned = copy.deepcopy(source.model)
    apply_masks(pruned, result.masks, result.layers)
    top1 = {
        "top1_dense": dense,
        "top1_pruned": _top1(source, pruned, given),
        "top1_repaired": _top1(source, result.model, given),
    }
    if out is not None:
        _save(result, source, given, size)
    if page is not None:
        others = other_rules(
            source.model, result.allocation, diagnosis=result.diagnosis, layers=result.layers
        )
        diagnoses = [] if result.diagnosis is None else [result.diagnosis]
        sm.report(Compression.of(result, **top1), *others, *diagnoses).save(page)
    if given.json:
        values = result.to_dict() | top1 | {"seed": seed, "calibration_size": size}
        for key, path in (("out", out), ("report", page)):
            values[key] = None if path is None else str(path)
        print_json(values)
        return
    print(result)
    if result.search is not None:
        print(result.search)
    print(source.describe_shares(size, heldout_size))
    for stage in ("dense", "pruned", "repaired"):
        print(f"top-1 {stage:<9} {percent(top1[f'top1_{stage}']):>9}")
    for path in (out, page):
        if path is not None:
            print(f"wrote {path}")


def _rule(text: str) -> str | sm.Allocation:
    """The name of a rule, or an allocation from its file."""
    return sm.Allocation.load(text) if text.endswith(".json") else text


def _top1(source: Source, network: nn.Module, given: Given) -> float | None:
    """Accuracy on the test split; None where there are no labels."""
    if not (source.data.has_labels and source.data.test_size):
        return None
    return sm.evaluate(network, source.test(given.limit)).top1


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
