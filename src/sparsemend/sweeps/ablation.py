"""What forcing some layers to another rule's densities does to recovery (method, section 3)."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparsemend.allocation import ForcedRule
from sparsemend.sweeps.records import Measure, Record, Spread
from sparsemend.sweeps.result import SweepResult, write_csv
from sparsemend.sweeps.text import columns, failure_lines, spread_text
from sparsemend.sweeps.transition import spread


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

    def comparisons(self, measure: Measure | None = None) -> tuple[Comparison, ...]:
        """One for every network, mask, repair and sparsity.

        Parameters
        ----------
        measure
            ``"accuracy"`` or ``"agreement"``; default accuracy where there are labels.
        """
        if measure is None:
            labelled = any(r.recovery("accuracy") is not None for r in self.sweep.records)
            measure = "accuracy" if labelled else "agreement"
        cells: dict[tuple[str, str, str, float], dict[tuple[str, int], Record]] = {}
        for record in self.sweep.records:
            cell = record.cell
            place = (cell.network, cell.mask, cell.repair, cell.sparsity)
            cells.setdefault(place, {})[cell.rule, cell.seed] = record
        found = (self._compare(*place, measure, cells[place]) for place in cells)
        return tuple(comparison for comparison in found if comparison is not None)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row per comparison, atomically."""
        write_csv(path, [_row(comparison) for comparison in self.comparisons()])

    def __str__(self) -> str:
        lines = [
            f"{network}: {self.rule.source}'s densities instead of {self.rule.base}'s in "
            f"{', '.join(names)}"
            for network, names in self.layers.items()
        ]
        found = self.comparisons()
        if found:
            lines += [
                "",
                f"recovery by {found[0].measure}",
                *self._table(found),
                "",
                verdict(found),
            ]
        if self.sweep.failures:
            lines += ["", *failure_lines(self.sweep.failures)]
        return "\n".join(lines)

    def _compare(
        self,
        network: str,
        mask: str,
        repair: str,
        sparsity: float,
        measure: Measure,
        records: Mapping[tuple[str, int], Record],
    ) -> Comparison | None:
        rules = (self.rule.base, str(self.rule), self.rule.source)
        seeds = [seed for rule, seed in records if rule == self.rule.base]
        complete = [seed for seed in seeds if all((rule, seed) in records for rule in rules)]
        if not complete:
            return None

        def over_seeds(value: Callable[[Record], float | None], rule: str) -> list[float | None]:
            return [value(records[rule, seed]) for seed in complete]

        base, forced, source = (over_seeds(lambda r: r.recovery(measure), rule) for rule in rules)
        gains = [
            None if ours is None or theirs is None else ours - theirs
            for ours, theirs in zip(forced, base, strict=True)
        ]

        def density(rule: str) -> float:
            names = self.layers[network]
            return statistics.fmean(
                records[rule, seed].densities[name] for seed in complete for name in names
            )

        return Comparison(
            network, mask, repair, sparsity, measure,
            spread(base), spread(forced), spread(source), spread(gains),
            density(self.rule.base), density(self.rule.source),
        )  # fmt: skip

    def _table(self, found: Sequence[Comparison]) -> list[str]:
        rule = self.rule
        head = ("network", "mask", "repair", "sparsity", f"density {rule.base}",
                f"density {rule.source}", rule.base, str(rule), rule.source, "gain")  # fmt: skip
        rows = [
            (x.network, x.mask, x.repair, f"{x.sparsity:g}", f"{x.base_density:.3f}",
             f"{x.source_density:.3f}", spread_text(x.base), spread_text(x.forced),
             spread_text(x.source), spread_text(x.gain))
            for x in found
        ]  # fmt: skip
        return columns([head, *rows])


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
    """Flat; a spread as its mean, standard deviation and count."""
    row: dict[str, Any] = {}
    for name, value in asdict(comparison).items():
        if isinstance(value, dict):
            row |= {f"{name}_{part}": value[part] for part in ("mean", "std", "count")}
        else:
            row[name] = value
    return row
