"""Results made up for reports: shaped like real ones, with known answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from sparsemend.allocation import Allocation
from sparsemend.diagnosis import Diagnosis
from sparsemend.reports import Compression
from sparsemend.sweeps import Cell, Measure, Record, Spread, Transition

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</textarea></title></script><script>x</script>",
    "a'b&amp;\"c,d;\ne",
    "]]>-->\x00\x1f",
)
SPARSITIES = (0.5, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96)
MIDPOINTS = {"global": 0.9, "erk": 0.86, "rr": 0.88}
DENSE, CHANCE = 0.7, 0.1
FORCED = "erk[projection=lamp]"


def make_diagnosis(
    layers: Sequence[str] = ("conv1", "layer1.0.conv1", "fc"), count: int = 24
) -> Diagnosis:
    rng = np.random.default_rng(0)
    raw = np.sort(rng.random((len(layers), count)) * 3, axis=1)[:, ::-1].copy()
    rr = rng.random((len(layers), count)) * 1.2
    raw[:, -1] = 0
    residual = raw * rr
    rr[:, -1] = np.nan
    return Diagnosis(
        tuple(layers), np.geomspace(0.01, 1, count), raw, residual, rr, "variance", inputs=512
    )


def recovery_at(sparsity: float, midpoint: float) -> float:
    return 1 / (1 + math.exp((sparsity - midpoint) / 0.01))


def make_records(
    *,
    networks: Iterable[str] = ("net",),
    midpoints: dict[str, float] | None = None,
    repairs: Iterable[str] = ("batchnorm",),
    seeds: Iterable[int] = (0, 1, 2),
    sparsities: Iterable[float] = SPARSITIES,
    labels: bool = True,
) -> tuple[Record, ...]:
    """Logistic recoveries whose midpoints move by 0.002 from seed to seed."""
    found = []
    for network in networks:
        for repair in repairs:
            for rule, midpoint in (midpoints or MIDPOINTS).items():
                for seed in seeds:
                    for sparsity in sparsities:
                        recovery = recovery_at(sparsity, midpoint + 0.002 * seed)
                        top1 = CHANCE + recovery * (DENSE - CHANCE)
                        found.append(
                            Record(
                                cell=Cell(network, rule, "magnitude", repair, sparsity, seed),
                                achieved_sparsity=sparsity,
                                top1_dense=DENSE if labels else None,
                                top1_pruned=CHANCE if labels else None,
                                top1_repaired=top1 if labels else None,
                                chance=CHANCE,
                                kl=1 - recovery,
                                agreement=CHANCE + recovery * (1 - CHANCE),
                                seconds=1.5,
                                versions={"torch": "2.13.0"},
                                densities={"conv1": 1 - sparsity, "fc": (1 - sparsity) / 2},
                            )
                        )
    return tuple(found)


def make_transition(
    rule: str,
    midpoint: float | None,
    *,
    measure: Measure = "accuracy",
    network: str = "net",
    repair: str = "batchnorm",
    width: float = 0.03,
    std: float | None = 0.002,
) -> Transition:
    def spread(value: float | None) -> Spread:
        return Spread(value, None if value is None else std, 0 if value is None else 3)

    ends = (None, None) if midpoint is None else (midpoint - width / 2, midpoint + width / 2)
    return Transition(
        *(network, rule, "magnitude", repair, measure, spread(midpoint)), *map(spread, ends)
    )


def make_transitions(**changes: float | None) -> tuple[Transition, ...]:
    """By accuracy, and by agreement half a point earlier."""
    midpoints = {**MIDPOINTS, **changes}
    return tuple(
        make_transition(rule, m if m is None or measure == "accuracy" else m - 0.005,
                        measure=measure)
        for measure in ("accuracy", "agreement")
        for rule, m in midpoints.items()
    )  # fmt: skip


def make_allocation(rule: str, *counts: int, names: Sequence[str] = ("a", "b", "c")) -> Allocation:
    sizes = dict(zip(names, (100, 200, 700), strict=True))
    return Allocation(dict(zip(names, counts, strict=True)), sizes, rule)


def make_compression(**changes: object) -> Compression:
    values: dict[str, object] = {
        "allocation": make_allocation("global", 40, 10, 50),
        "rule": "global",
        "mask": "gradual",
        "repair": "reconstruct",
        "scope": "sequential",
        "kl": 0.25,
        "agreement": 0.875,
        "heldout": True,
        "top1_dense": 0.9,
        "top1_pruned": 0.125,
        "top1_repaired": 0.75,
        "tried": {"reconstruct": 0.25, "batchnorm": 0.5},
        "seconds": {"allocate": 0.5, "repair": 9.5},
    }
    return Compression(**{**values, **changes})  # type: ignore[arg-type]


def make_ablation() -> tuple[Record, ...]:
    """Forcing gains two points at every sparsity but the lowest, where it costs one."""
    base = make_records(midpoints={"erk": 0.86, "lamp": 0.88}, seeds=(0,))
    forced = []
    for record in base:
        if record.cell.rule == "erk":
            change = -0.01 if record.cell.sparsity == SPARSITIES[0] else 0.02
            cell = dataclasses.replace(record.cell, rule=FORCED)
            top1 = (record.top1_repaired or 0.0) + change
            forced.append(dataclasses.replace(record, cell=cell, top1_repaired=top1))
    return (*base, *forced)
