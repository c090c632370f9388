"""What a compression shows: what was lost and regained, what was chosen, and against what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparsemend.allocation import Allocation
from sparsemend.layers import Coverage
from sparsemend.patterns import patterned
from sparsemend.reports.contents import Compression
from sparsemend.reports.drawing.text import listed, number, percent, plural
from sparsemend.reports.words._names import short, some
from sparsemend.timing import Timing


def of_compression(
    compression: Compression, allocations: Sequence[Allocation] = ()
) -> Iterator[str]:
    """What was lost and regained, what was chosen, and who got more than under ERK."""
    allocation = compression.allocation
    removed = f"{percent(allocation.sparsity, 4)} of {allocation.total:,} weights removed"
    inputs = f"{'unseen' if compression.heldout else 'the calibration'} inputs"
    if compression.agreement is None or compression.kl is None:
        same = f"compared with the dense network's outputs on {inputs}: {compression.judged}"
    else:
        same = (
            "the sparse network chooses the dense one's class on "
            f"{percent(compression.agreement)} of {inputs} (KL {number(compression.kl)} nats)"
        )
    if compression.top1_repaired is not None and compression.top1_dense is not None:
        text = f"{removed}: top-1 goes from {percent(compression.top1_dense)} to "
        text += percent(compression.top1_repaired)
        if compression.top1_pruned is not None:
            text += f" (before repair: {percent(compression.top1_pruned)})"
        yield f"{text}."
        yield f"Without any labels, {same}."
    else:
        yield f"{removed}: {same}."
    if compression.signal_ends:
        yield (
            "The output does not depend on the input any more: the signal ends at "
            f"{some(compression.signal_ends)}."
        )
    if compression.coverage is not None:
        yield _covered(compression.coverage, allocation.kept)
    yield (
        f"Rule {compression.rule}, mask {compression.mask}{patterned(compression.pattern)}, "
        f"repair {compression.repair} "
        f"({compression.scope})"
        + (
            f", the closest of {len(compression.tried)} endings"
            if len(compression.tried) > 1
            else ""
        )
        + "."
    )
    erk = next((a for a in allocations if a.rule == "erk"), None)
    if erk is not None and allocation.rule != "erk" and erk.keys() == allocation.keys():
        yield from _against_erk(allocation, erk)
    if compression.timing is not None:
        yield from _of_timing(compression.timing)
    if compression.added_biases:
        yield (
            f"{plural(len(compression.added_biases), 'layer')} got a bias parameter that the "
            f"original lacks: {some(compression.added_biases)}."
        )
    if compression.unshifted:
        yield (
            f"Repaired without a shift, having neither a bias nor a BatchNorm behind: "
            f"{some(compression.unshifted)}."
        )


def _covered(coverage: Coverage, kept: int) -> str:
    """Of what the sparsity is, and what was left out."""
    overall = coverage.sparsity(kept)
    if coverage.covered == coverage.matrix:
        text = "These are all weights that the network multiplies with; "
    else:
        text = (
            f"Layers are {percent(coverage.share)} of the weights that the network multiplies "
            f"with, of which {percent(overall['matrix'], 4)} were removed; "
        )
    text += f"of all {coverage.parameters:,} parameters {percent(overall['parameters'], 4)}."
    parts = [
        f"{some([part.parameter for part in parts])} ({reason})"
        for reason, parts in coverage.reasons().items()
        if any(part.multiplied for part in parts)
    ]
    return text + (f" Left out: {'; '.join(parts)}." if parts else "")


def _of_timing(timing: Timing) -> Iterator[str]:
    """How long one batch takes on every engine, and how small the packed file is."""
    times = [f"{name} {number(ms)} ms" for name, ms in timing.milliseconds.items()]
    threads = plural(timing.threads, "thread")
    yield f"One batch ({timing.batch}) on {threads} of {timing.machine}: {listed(times)}."
    if timing.packed_bytes is not None:
        share = percent(timing.packed_bytes / max(timing.dense_bytes, 1))
        yield (
            f"Packed it takes {timing.packed_bytes / 1024:,.1f} KiB, {share} of the dense "
            f"{timing.dense_bytes / 1024:,.1f} KiB."
        )


def _against_erk(allocation: Allocation, erk: Allocation) -> Iterator[str]:
    ratio = {n: allocation.densities[n] / erk.densities[n] for n in allocation if erk[n]}
    more = sorted((n for n in ratio if ratio[n] > 1.05), key=lambda n: -ratio[n])[:3]
    less = sorted((n for n in ratio if ratio[n] < 1 / 1.05), key=lambda n: ratio[n])[:3]
    parts = []
    if more:
        parts.append(
            f"most more to {listed([f'{short(n)} (×{number(ratio[n], 2)})' for n in more])}"
        )
    if less:
        parts.append(
            f"most less to {listed([f'{short(n)} (×{number(ratio[n], 2)})' for n in less])}"
        )
    if parts:
        yield f"Compared with ERK, rule {allocation.rule} gives {', and '.join(parts)}."
