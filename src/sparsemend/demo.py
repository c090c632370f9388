"""The whole job on scikit-learn's digits: train once, diagnose, prune, repair, compare."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparsemend import data, models
from sparsemend.allocation import rule_names
from sparsemend.calibration import calibrate
from sparsemend.diagnosis import Diagnosis, diagnose
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.evaluation import Evaluation, evaluate
from sparsemend.exports import Export, export
from sparsemend.files import make_folder
from sparsemend.progress import progress_shown
from sparsemend.recipe.defaults import BATCH_SIZE, CALIBRATION_SIZE, SEED
from sparsemend.reports import Compression, other_rules, report
from sparsemend.sweeps import Record, SweepResult
from sparsemend.sweeps.result import write_csv
from sparsemend.sweeps.sweep import sweep
from sparsemend.timing import Timing, bench
from sparsemend.verbs.compress import compress
from sparsemend.verbs.compression import CompressionResult

SPARSITIES = (0.8, 0.9, 0.95)
REPAIRS = (
    "none",
    "mean",
    "variance",
    "layerwise",
    "shrinkage",
    "affine",
    "batchnorm",
    "batchnorm-ema",
    "shrinkage+batchnorm-ema",
    "reconstruct",
)

_SECONDS = 1.0
"""For the times at the end."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo found and which files it wrote.

    Attributes
    ----------
    dense
        Accuracy of the dense network.
    diagnosis
        Of the layers; what rules that read a diagnosis were given.
    records
        By sparsity, rule and repair.
    files
        Diagnosis, table, best network as a checkpoint and packed.
    export
        The packed file of the best network.
    timing
        How fast one image of it runs, beside dense runtimes.
    report
        The page, if one was asked for.
    """

    dense: Evaluation
    diagnosis: Diagnosis
    records: tuple[Record, ...]
    files: tuple[Path, ...]
    export: Export
    timing: Timing
    report: Path | None = None

    @property
    def best(self) -> Record:
        """The most accurate network at the highest sparsity; the first of equals."""
        return _best(self.records)

    def table(self, sparsity: float) -> str:
        """Accuracies in percent at one sparsity: rules down, repairs across."""
        top1 = {
            (record.cell.rule, record.cell.repair): _top1(record)
            for record in self.records
            if record.cell.sparsity == sparsity
        }
        rules, repairs = (list(dict.fromkeys(names)) for names in zip(*top1, strict=True))
        heads = [repair.replace("batchnorm", "bn") for repair in repairs]
        widths = [max(6, len(head)) + 2 for head in heads]
        title = f"top-1 % at {100 * sparsity:.0f} % sparsity (dense {100 * self.dense.top1:.1f})"
        header = "".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True))
        lines = [title, f"{'rule':<12}{header}"]
        for rule in rules:
            values = (
                f"{100 * top1[rule, repair]:>{w}.1f}"
                for repair, w in zip(repairs, widths, strict=True)
            )
            lines.append(f"{rule:<12}{''.join(values)}")
        return "\n".join(lines)


def row(record: Record) -> dict[str, Any]:
    """What the demo writes of one network."""
    cell = record.cell
    return {
        "sparsity": cell.sparsity,
        "rule": cell.rule,
        "repair": cell.repair,
        "top1": _top1(record),
        "kl": record.kl,
    }


def run(
    folder: Path,
    *,
    page: Path | None = None,
    sparsities: Sequence[float] = SPARSITIES,
    rules: Sequence[str] | None = None,
    repairs: Sequence[str] = REPAIRS,
    progress: bool | None = None,
) -> DemoResult:
    """Compress the digits network with every rule and every repair.

    Parameters
    ----------
    folder
        Where to write the diagnosis, the table and the best network; made if missing.
    page
        Where to write the report, if anywhere.
    sparsities, rules, repairs
        What to try; rules default to all.
    progress
        Show progress bars; default on a terminal.
    """
    with progress_shown(progress), _one_thread(), warnings.catch_warnings():
        # Whole channels die at these sparsities; in a table of all rules that is no news.
        warnings.simplefilter("ignore", SparsemendWarning)
        rules = rule_names() if rules is None else rules
        return _run(folder, page, sparsities, rules, repairs)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread is fastest for 8 × 8 images; several would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(
    folder: Path,
    page: Path | None,
    sparsities: Sequence[float],
    rules: Sequence[str],
    repairs: Sequence[str],
) -> DemoResult:
    make_folder(folder, "the demo's folder")
    loaded = models.load("digits")
    images = data.load("digits", mean=loaded.mean, std=loaded.std)
    model = loaded.model
    inputs = list(images.calibration(CALIBRATION_SIZE, seed=SEED).split(BATCH_SIZE))
    dense = evaluate(model, images.test_batches(BATCH_SIZE))
    calibration = calibrate(model, inputs)
    diagnosis = diagnose(model, calibration, "variance")
    swept = sweep(
        {"digits": model},
        images,
        sparsities,
        rules=rules,
        repairs=repairs,
        seeds=SEED,
        # One diagnosis for all, so that a rule has the same densities whatever the repair.
        diagnosis=diagnosis,
        calibration_size=CALIBRATION_SIZE,
        heldout_size=0,
        batch_size=BATCH_SIZE,
    )
    if swept.failures:
        failure = swept.failures[0]
        raise SparsemendError(f"{failure.cell}: {failure.error}")
    of = {(r.cell.sparsity, r.cell.rule, r.cell.repair): r for r in swept.records}
    records = tuple(of[key] for key in itertools.product(sparsities, rules, repairs))
    best = _best(records)
    # A sweep keeps no networks: the one to save is made again.
    result = compress(
        model,
        inputs,
        best.cell.sparsity,
        best.cell.rule,
        repair=best.cell.repair,
        calibration=calibration,
        diagnosis=diagnosis,
    )
    files = _write(folder, diagnosis, records, result, loaded.metadata)
    one = inputs[0][:1]
    packed = export(result, folder / "sparse.packed", example=one)
    timing = bench(result, one, seconds=_SECONDS)
    if page is not None:
        compression = Compression.of(result, top1_dense=dense.top1, top1_repaired=_top1(best))
        others = other_rules(model, result.allocation, diagnosis=diagnosis)
        shown = SweepResult(records)
        report(compression, diagnosis, *others, shown, title="Demo on digits").save(page)
    return DemoResult(dense, diagnosis, records, (*files, packed.path), packed, timing, page)


def _top1(record: Record) -> float:
    assert record.top1_repaired is not None, "the digits have labels"
    return record.top1_repaired


def _best(records: Sequence[Record]) -> Record:
    highest = max(record.cell.sparsity or 0.0 for record in records)
    return max((r for r in records if r.cell.sparsity == highest), key=_top1)


def _write(
    folder: Path,
    diagnosis: Diagnosis,
    records: Sequence[Record],
    best: CompressionResult,
    metadata: Mapping[str, Any],
) -> tuple[Path, ...]:
    files = (folder / "diagnosis.json", folder / "accuracies.csv", folder / "sparse.safetensors")
    diagnosis.save(files[0])
    write_csv(files[1], [row(record) for record in records])
    known = ("architecture", "mean", "std")
    best.save(files[2], {key: metadata[key] for key in known if key in metadata})
    return files
