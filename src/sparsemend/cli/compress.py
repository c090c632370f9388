"""sparsemend compress: the whole job, from a dense network to a sparse checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

import typer

import sparsemend as sm
from sparsemend.cli import _options as opt
from sparsemend.cli._output import friendly_errors, percent, print_json
from sparsemend.masks import MASKS, apply_masks
from sparsemend.repair import SCOPES


def compress(
    model: opt.Model,
    data: opt.Data,
    sparsity: opt.Sparsity,
    weights: opt.Weights = None,
    rule: Annotated[str, typer.Option(help=f"One of {', '.join(sm.rule_names())}.")] = "global",
    mask: Annotated[str, typer.Option(help=f"One of {', '.join(MASKS)}.")] = "magnitude",
    repair: Annotated[
        str,
        typer.Option(help=f"Of {', '.join(sm.repair_names())}; or as in variance+batchnorm."),
    ] = "variance",
    scope: Annotated[str, typer.Option(help=f"One of {', '.join(SCOPES)}.")] = "sequential",
    calibration_size: opt.CalibrationSize = 512,
    heldout_size: Annotated[
        int, typer.Option(help="Further training inputs on which agreement is measured.")
    ] = 256,
    seed: opt.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the sparse network here.")] = None,
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
        if out is not None and out.suffix != ".safetensors":
            raise sm.SparsemendError("--out has another ending", str(out), "a .safetensors file")
        if out is not None and not out.parent.is_dir():
            raise sm.SparsemendError("the folder of --out does not exist", str(out.parent))
        source = opt.load_source(
            model, weights, data, num_classes, width, mean, std, batch_size, device
        )
        unseen = source.heldout(heldout_size, calibration_size, seed) if heldout_size else None
        result = sm.compress(
            source.model,
            source.calibration(calibration_size, seed),
            sparsity,
            rule,
            mask,
            repair,
            scope=scope,
            heldout=unseen,
        )
        if out is not None:
            result.save(out, _metadata(source, model, calibration_size, seed))
        report = _report(result, source, limit)
        report |= {"seed": seed, "calibration_size": calibration_size}
        report |= {"out": None if out is None else str(out)}
        if json:
            print_json(report)
            return
        print(result)
        for stage in ("dense", "pruned", "repaired"):
            print(f"top-1 {stage:<9} {percent(report[f'top1_{stage}']):>9}")
        if out is not None:
            print(f"wrote {out}")


def _report(result: sm.CompressionResult, source: opt.Source, limit: int | None) -> dict[str, Any]:
    """Everything that was decided and measured, ready for JSON."""
    report: dict[str, Any] = {
        "sparsity": result.sparsity,
        "kept": result.allocation.kept,
        "total": result.allocation.total,
        "counts": dict(result.allocation),
        "rule": result.rule,
        "mask": result.mask,
        "repair": result.repair,
        "scope": result.scope,
        "kl": result.agreement.kl,
        "agreement": result.agreement.top1,
        "heldout": result.heldout,
        "added_biases": list(result.added_biases),
        "seconds": dict(result.seconds),
        "version": sm.__version__,
    }
    networks = {"dense": source.model, "pruned": source.model, "repaired": result.model}
    for stage, network in networks.items():
        top1 = None
        if source.data.has_labels and source.data.test_size:
            if stage == "pruned":
                network = copy.deepcopy(network)
                apply_masks(network, result.masks)
            top1 = sm.evaluate(network, source.test(limit)).top1
        report[f"top1_{stage}"] = top1
    return report


def _metadata(source: opt.Source, model: str, size: int, seed: int) -> dict[str, object]:
    """What a later load needs: normalisation and how the checkpoint was made."""
    kept = {k: v for k, v in source.loaded.metadata.items() if k in ("architecture", "mean", "std")}
    return {"architecture": model, **kept, "calibration_size": size, "seed": seed}
