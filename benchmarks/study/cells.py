"""Finished cells of several stores, and the pairs of them that differ in the rule alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import sparsemend as sm
from sparsemend.sweeps import Cell, Record
from sparsemend.sweeps.transition import END, START

Setting = tuple[str, str, str]


@dataclass(frozen=True)
class Study:
    """The labelled cells of several stores.

    Attributes
    ----------
    records
        In the order of the stores.
    stores
        Cell → name of the store that holds it, without its ending.
    """

    records: tuple[Record, ...]
    stores: Mapping[Cell, str]


@dataclass(frozen=True)
class Pair:
    """Two cells of one network, mask, repair, sparsity and seed, and of the same inputs."""

    ours: Record
    theirs: Record

    @property
    def setting(self) -> Setting:
        """Network, mask and repair."""
        cell = self.ours.cell
        return cell.network, cell.mask, cell.repair

    @property
    def sparsity(self) -> float:
        return self.ours.cell.sparsity

    @property
    def difference(self) -> float:
        """Top-1 of ours over theirs, in points."""
        return 100 * (_top1(self.ours) - _top1(self.theirs))

    @property
    def recovery(self) -> float:
        """Mean of both recoveries; NaN where the dense network only guesses."""
        found = (self.ours.recovery("accuracy"), self.theirs.recovery("accuracy"))
        return sum(math.nan if value is None else value for value in found) / 2

    @property
    def inside(self) -> bool:
        """Whether it lies in the transition: the mean recovery of both is from 0.2 to 0.8."""
        return END <= self.recovery <= START

    @property
    def sampling_error(self) -> float:
        """Standard error of the difference that the test images leave, in points.

        That of independent samples. Both networks see the same images and mostly agree on them, so
        it is an upper bound.
        """
        images = self.ours.settings.test_size if self.ours.settings else 0
        variance = sum(a * (1 - a) for a in (_top1(self.ours), _top1(self.theirs)))
        return 100 * math.sqrt(variance / images) if images else math.inf


def read_study(paths: Iterable[Path]) -> Study:
    """All cells with labels.

    Raises
    ------
    sparsemend.SparsemendError
        If a file is no store, or two stores have different results for one cell.
    """
    records: dict[Cell, Record] = {}
    stores: dict[Cell, str] = {}
    for path in paths:
        for record in sm.SweepResult.load(path).records:
            if record.top1_repaired is None:
                continue
            other = records.setdefault(record.cell, record)
            if other.settings != record.settings:
                raise sm.SparsemendError(
                    f"two stores hold {record.cell} with different settings",
                    f"{stores[record.cell]}, {path.stem}",
                    fix="make one page for each",
                )
            stores.setdefault(record.cell, path.stem)
    return Study(tuple(records.values()), stores)


def pairs(records: Iterable[Record], ours: str, theirs: str) -> Iterator[Pair]:
    """Every cell of the one rule with that of the other, by ascending sparsity and seed."""
    by_rule: dict[str, dict[object, Record]] = {ours: {}, theirs: {}}
    for record in records:
        if record.cell.rule in by_rule:
            by_rule[record.cell.rule][_place(record)] = record
    found = (
        Pair(record, by_rule[theirs][place])
        for place, record in by_rule[ours].items()
        if place in by_rule[theirs]
    )
    yield from sorted(found, key=lambda pair: (pair.setting, pair.sparsity, pair.ours.cell.seed))


def _place(record: Record) -> object:
    """What two cells that are compared have in common: all but the rule and what goes with it."""
    settings = record.settings
    if settings is not None:
        settings = dataclasses.replace(settings, budget="", diagnosis="")
    return dataclasses.replace(record.cell, rule=""), settings


def _top1(record: Record) -> float:
    assert record.top1_repaired is not None, "a study reads labelled cells only"
    return record.top1_repaired
