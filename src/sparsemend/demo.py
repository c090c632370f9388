"""The whole job on scikit-learn's digits: train once, diagnose, prune, repair, compare."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from sparsemend import data, models
from sparsemend.allocation import rule_names
from sparsemend.calibration import calibrate
from sparsemend.diagnosis import Diagnosis, diagnose
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.evaluation import Evaluation, evaluate
from sparsemend.files import atomic_write
from sparsemend.progress import progress_bar
from sparsemend.reports import Compression, other_rules, report
from sparsemend.sweeps import SweepResult
from sparsemend.sweeps import records as sweep
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
CALIBRATION_SIZE = 512


@dataclass(frozen=True)
class Cell:
    """One compressed network of the demo's table; ``top1`` is a fraction."""

    sparsity: float
    rule: str
    repair: str
    top1: float
    kl: float


@dataclass(frozen=True)
class DemoResult:
    """What the demo found and which files it wrote."""

    dense: Evaluation
    diagnosis: Diagnosis
    cells: tuple[Cell, ...]
    files: tuple[Path, ...]
    report: Path | None = None

    @property
    def best(self) -> Cell:
        """The most accurate network at the highest sparsity; the first of equals."""
        highest = max(cell.sparsity for cell in self.cells)
        return max((c for c in self.cells if c.sparsity == highest), key=lambda c: c.top1)

    def table(self, sparsity: float) -> str:
        """Accuracies in percent at one sparsity: rules down, repairs across."""
        cells = [cell for cell in self.cells if cell.sparsity == sparsity]
        repairs = list(dict.fromkeys(cell.repair for cell in cells))
        heads = [repair.replace("batchnorm", "bn") for repair in repairs]
        widths = [max(6, len(head)) + 2 for head in heads]
        title = f"top-1 % at {100 * sparsity:.0f} % sparsity (dense {100 * self.dense.top1:.1f})"
        header = "".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True))
        lines = [title, f"{'rule':<12}{header}"]
        for rule in dict.fromkeys(cell.rule for cell in cells):
            row = {cell.repair: cell.top1 for cell in cells if cell.rule == rule}
            values = (f"{100 * row[r]:>{w}.1f}" for r, w in zip(repairs, widths, strict=True))
            lines.append(f"{rule:<12}{''.join(values)}")
        return "\n".join(lines)


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
    with _one_thread(), warnings.catch_warnings():
        # Whole channels die at these sparsities; in a table of all rules that is no news.
        warnings.simplefilter("ignore", SparsemendWarning)
        rules = rule_names() if rules is None else rules
        return _run(folder, page, sparsities, rules, repairs, progress)


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
    progress: bool | None,
) -> DemoResult:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SparsemendError(
            f"the demo's folder cannot be made ({error.strerror})",
            str(folder),
            fix="choose another",
        ) from error
    loaded = models.load("digits")
    images = data.load("digits", mean=loaded.mean, std=loaded.std)
    model, inputs = loaded.model, list(images.calibration(CALIBRATION_SIZE, seed=0).split(128))
    test = list(images.test_batches())
    dense = evaluate(model, test, progress=progress)
    calibration = calibrate(model, inputs, progress=progress)
    diagnosis = diagnose(model, calibration, "variance", progress=progress)
    cells: list[Cell] = []
    records: list[sweep.Record] = []
    best: tuple[Cell, CompressionResult] | None = None
    grid = [(s, rule, repair) for s in sparsities for rule in rules for repair in repairs]
    with progress_bar("prune and repair", len(grid)) as advance:
        for sparsity, rule, repair in grid:
            result = compress(
                model,
                inputs,
                sparsity,
                rule,
                repair=repair,
                calibration=calibration,
                diagnosis=diagnosis,
                progress=False,
            )
            top1 = evaluate(result.model, test, progress=False).top1
            cell = Cell(sparsity, rule, repair, top1, result.agreement.kl)
            cells.append(cell)
            records.append(_record(cell, result, dense))
            if best is None or (sparsity, top1) > (best[0].sparsity, best[0].top1):
                best = (cell, result)
            advance()
    files = _write(folder, diagnosis, cells, best, loaded.metadata)
    if page is not None and best is not None:
        result = best[1]
        compression = Compression.of(result, top1_dense=dense.top1, top1_repaired=best[0].top1)
        others = other_rules(model, result.allocation, diagnosis=diagnosis)
        tried = SweepResult(tuple(records))
        report(compression, diagnosis, *others, tried, title="Demo on digits").save(page)
    return DemoResult(dense, diagnosis, tuple(cells), files, page)


def _record(cell: Cell, result: CompressionResult, dense: Evaluation) -> sweep.Record:
    """A cell as a record of a sweep, which the report can show."""
    return sweep.Record(
        cell=sweep.Cell("digits", cell.rule, result.mask, cell.repair, cell.sparsity, seed=0),
        achieved_sparsity=result.sparsity,
        top1_dense=dense.top1,
        top1_pruned=None,
        top1_repaired=cell.top1,
        chance=1 / 10,
        kl=cell.kl,
        agreement=result.agreement.top1,
        seconds=sum(result.seconds.values()),
    )


def _write(
    folder: Path,
    diagnosis: Diagnosis,
    cells: Sequence[Cell],
    best: tuple[Cell, CompressionResult] | None,
    metadata: object,
) -> tuple[Path, ...]:
    files = [folder / "diagnosis.json", folder / "accuracies.csv"]
    diagnosis.save(files[0])
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["sparsity", "rule", "repair", "top1", "kl"])
    table.writerows([c.sparsity, c.rule, c.repair, c.top1, c.kl] for c in cells)
    atomic_write(files[1], lambda file: file.write(text.getvalue().encode()))
    if best is not None:
        files.append(folder / "sparse.safetensors")
        facts = dict(metadata) if isinstance(metadata, dict) else {}
        best[1].save(files[2], {k: facts[k] for k in ("architecture", "mean", "std") if k in facts})
    return tuple(files)
