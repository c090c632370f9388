"""What forcing some layers to another rule's densities does to recovery (method, section 3)."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsemend.allocation import ForcedRule
from sparsemend.boundary import public
from sparsemend.errors import printable
from sparsemend.sweeps.records import Measure, Record, Spread
from sparsemend.sweeps.result import SweepResult, write_csv
from sparsemend.sweeps.text import columns, failure_lines, spread_text
from sparsemend.sweeps.transition import grouped, spread


@dataclass(frozen=True)
class Comparison:
    """Recovery of a rule, of the same with layers forced, and of the rule they were forced to.

    Attributes
    ----------
    network, mask, repair, sparsity, measure
        Where they are compared.
    base, forced, source
        Recovery over the seeds that have all three.
    gain
        forced − base, seed by seed.
    base_density, source_density
        Mean density of the forced layers under the two rules.
    """

    network: str
    mask: str
    repair: str
    sparsity: float
    measure: Measure
    base: Spread
    forced: Spread
    source: Spread
    gain: Spread
    base_density: float
    source_density: float


@dataclass(frozen=True)
class AblationResult:
    """An ablation of some layers' densities.

    Attributes
    ----------
    rule
        What was forced.
    layers
        Network → names of the forced layers.
    sweep
        The cells of the three rules.
    """

    rule: ForcedRule
    layers: Mapping[str, tuple[str, ...]]
    sweep: SweepResult

    @public
    def comparisons(self, measure: Measure | None = None) -> tuple[Comparison, ...]:
        """One for every network, mask, repair and sparsity.

        Parameters
        ----------
        measure
            ``"accuracy"`` or ``"agreement"``; default accuracy where there are labels.
        """
        records = self.sweep.records
        if measure is None:
            labelled = any(record.recovery("accuracy") is not None for record in records)
            measure = "accuracy" if labelled else "agreement"
        places = grouped(records, "network", "mask", "repair", "sparsity")
        found = (self._compare(place, own, measure) for place, own in places.items())
        return tuple(comparison for comparison in found if comparison is not None)

    def _compare(
        self, place: tuple[str, str, str, float], records: Sequence[Record], measure: Measure
    ) -> Comparison | None:
        by_rule = grouped(records, "rule")
        base, forced, source = (
            {record.cell.seed: record for record in by_rule.get((rule,), ())}
            for rule in (self.rule.base, str(self.rule), self.rule.source)
        )
        seeds = [seed for seed in base if seed in forced and seed in source]
        if not seeds:
            return None

        def recovery(rule: Mapping[int, Record]) -> list[float | None]:
            return [rule[seed].recovery(measure) for seed in seeds]

        def density(rule: Mapping[int, Record]) -> float:
            names = self.layers[place[0]]
            return statistics.fmean(rule[seed].densities[name] for seed in seeds for name in names)

        pairs = zip(recovery(forced), recovery(base), strict=True)
        gains = [
            None if ours is None or theirs is None else ours - theirs for ours, theirs in pairs
        ]
        return Comparison(
            *place, measure,
            spread(recovery(base)), spread(recovery(forced)), spread(recovery(source)),
            spread(gains), density(base), density(source),
        )  # fmt: skip

    @public
    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row per comparison, atomically; a spread is three columns."""
        write_csv(path, [_row(comparison) for comparison in self.comparisons()])

    def __str__(self) -> str:
        base, forced, source = self.rule.base, str(self.rule), self.rule.source
        lines = [
            printable(f"{network}: {source}'s densities instead of {base}'s in {', '.join(names)}")
            for network, names in self.layers.items()
        ]
        found = self.comparisons()
        if found:
            head = ("network", "mask", "repair", "sparsity", f"density {base}",
                    f"density {source}", base, forced, source, "gain")  # fmt: skip
            rows = [
                (x.network, x.mask, x.repair, f"{x.sparsity:g}", f"{x.base_density:.3f}",
                 f"{x.source_density:.3f}",
                 *map(spread_text, (x.base, x.forced, x.source, x.gain)))
                for x in found
            ]  # fmt: skip
            lines += ["", f"recovery by {found[0].measure}", *columns([head, *rows])]
            lines += ["", verdict(found)]
        if self.sweep.failures:
            lines += ["", *failure_lines(self.sweep.failures)]
        return "\n".join(lines)


def verdict(found: Sequence[Comparison]) -> str:
    """In words, how often forcing helped."""
    gains = [x.gain.mean for x in found if x.gain.mean is not None]
    if not gains:
        return "no recovery to compare"
    up, down = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return (
        f"forcing raises recovery in {up} and lowers it in {down} of {len(gains)} comparisons; "
        f"mean gain {statistics.fmean(gains):+.4f}"
    )


def _row(comparison: Comparison) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in vars(comparison).items():
        if isinstance(value, Spread):
            row |= {f"{name}_{part}": number for part, number in vars(value).items()}
        else:
            row[name] = value
    return row
