"""sparsemend compress: the whole job, from a dense network to a sparse checkpoint."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

import sparsemend as sm
from sparsemend.cli import _options as opt
from sparsemend.cli._output import friendly_errors, percent, print_json
from sparsemend.masks import apply_masks, mask_names
from sparsemend.models.weights import added_biases
from sparsemend.recipe import parse_budget
from sparsemend.repairs import SCOPES
from sparsemend.reports import Compression, other_rules


def compress(
    model: opt.Model,
    data: opt.Data,
    sparsity: opt.Sparsity,
    weights: opt.Weights = None,
    rule: Annotated[
        str,
        typer.Option(help=f"One of {', '.join(sm.rule_names())}; or auto: search for the best."),
    ] = "auto",
    mask: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(mask_names())}. Default: gradual where the repair "
            "reconstructs, else magnitude."
        ),
    ] = None,
    repair: Annotated[
        str,
        typer.Option(help=f"Of {', '.join(sm.repair_names())}; or as in variance+batchnorm."),
    ] = "best",
    scope: Annotated[str, typer.Option(help=f"One of {', '.join(SCOPES)}.")] = "sequential",
    budget: Annotated[
        str | None,
        typer.Option(
            help="How long rule auto may search: a number of repairs (default 40), or 20min. "
            "Ctrl-C ends the search with the best so far."
        ),
    ] = None,
    new_biases: opt.NewBiases = False,
    calibration_size: opt.CalibrationSize = 512,
    heldout_size: Annotated[
        int, typer.Option(help="Further training inputs on which agreement is measured.")
    ] = 256,
    flip: Annotated[
        bool, typer.Option("--flip", help="Add mirrored copies of the calibration images.")
    ] = False,
    seed: opt.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the sparse network here.")] = None,
    report: opt.Report = None,
    no_report: opt.NoReport = False,
    limit: opt.Limit = None,
    num_classes: opt.Classes = None,
    width: opt.Width = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    batch_size: opt.BatchSize = 128,
    device: opt.Device = None,
    json: opt.Json = False,
) -> None:
    """Prune, repair, compare, evaluate and save.

    Example: sparsemend compress --model digits --data digits --sparsity 0.9 --out s.safetensors
    """
    with friendly_errors():
        opt.check_out(out, ".safetensors")
        parse_budget(budget)  # a bad one is refused before any work
        beside = None if out is None else out.with_suffix(".html")
        page = opt.report_path(report, no_report, beside)
        source = opt.load_source(
            model, weights, data, num_classes, width, mean, std, batch_size, device
        )
        unseen = source.heldout(heldout_size, calibration_size, seed) if heldout_size else None
        dense = _top1(source, source.model, limit)  # first, so that a bad --limit costs no work
        result = sm.compress(
            source.model,
            source.calibration(calibration_size, seed, flip=flip),
            sparsity,
            rule,
            mask,
            repair,
            scope=scope,
            heldout=unseen,
            budget=budget,
            new_biases=new_biases,
        )
        pruned = copy.deepcopy(source.model)
        apply_masks(pruned, result.masks)
        top1 = {
            "top1_dense": dense,
            "top1_pruned": _top1(source, pruned, limit),
            "top1_repaired": _top1(source, result.model, limit),
        }
        values = _report(result) | {
            **top1,
            "seed": seed,
            "calibration_size": calibration_size,
            "out": None if out is None else str(out),
            "report": None if page is None else str(page),
        }
        if out is not None:
            _save(result, out, source, model, {"calibration_size": calibration_size, "seed": seed})
        if page is not None:
            _save_page(result, page, source, top1)
        if json:
            print_json(values)
            return
        print(result)
        if result.search is not None:
            print(result.search)
        for stage in ("dense", "pruned", "repaired"):
            print(f"top-1 {stage:<9} {percent(top1[f'top1_{stage}']):>9}")
        for path in (out, page):
            if path is not None:
                print(f"wrote {path}")


def _top1(source: opt.Source, network: nn.Module, limit: int | None) -> float | None:
    """Accuracy on the test split; None where there are no labels."""
    if not (source.data.has_labels and source.data.test_size):
        return None
    return sm.evaluate(network, source.test(limit)).top1


def _report(result: sm.CompressionResult) -> dict[str, Any]:
    """Everything that was decided and measured, ready for JSON."""
    return {
        "sparsity": result.sparsity,
        "kept": result.allocation.kept,
        "total": result.allocation.total,
        "counts": dict(result.allocation),
        "sizes": dict(result.allocation.sizes),
        "rule": result.rule,
        "search": None if result.search is None else result.search.to_dict(),
        "mask": result.mask,
        "repair": result.repair,
        "tried": dict(result.tried),
        "scope": result.scope,
        "kl": result.agreement.kl,
        "agreement": result.agreement.top1,
        "heldout": result.heldout,
        "added_biases": list(result.added_biases),
        "unshifted": list(result.unshifted),
        "seconds": dict(result.seconds),
        "version": sm.__version__,
    }


def _save_page(
    result: sm.CompressionResult, page: Path, source: opt.Source, top1: dict[str, float | None]
) -> None:
    """The report, with every rule's allocation of the same budget beside the chosen one."""
    others = other_rules(source.model, result.allocation, diagnosis=result.diagnosis)
    diagnoses = [] if result.diagnosis is None else [result.diagnosis]
    sm.report(Compression.of(result, **top1), *others, *diagnoses).save(page)


def _save(
    result: sm.CompressionResult,
    out: Path,
    source: opt.Source,
    model: str,
    made: dict[str, object],
) -> None:
    """Write the network with what a later load needs, and how it was made."""
    metadata = source.loaded.metadata
    facts: dict[str, object] = {"architecture": metadata.get("architecture", model), **made}
    for key, values in (("mean", source.data.mean), ("std", source.data.std)):
        if values is not None:
            facts[key] = ",".join(map(repr, values))
    # A network that was compressed before may have biases that the plain one lacks.
    earlier = added_biases(metadata, source=source.loaded.name)
    biases = dict.fromkeys((*earlier, *result.added_biases))
    dataclasses.replace(result, added_biases=tuple(biases)).save(out, facts)
