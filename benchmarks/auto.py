"""Rule auto beside the plain rules, from the stores of sweeps.

python -m benchmarks.auto c10.sqlite c100.sqlite

Every cell in which auto and all other rules of the stores were swept: top-1 in percent, means
over calibration seeds; then what auto gains over the plain rule that is best in the cell,
and over the one that is best on average over all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

import sparsemend as sm
from sparsemend.recipe import AUTO

# Network, repair, sparsity, seed → rule → top-1 in percent.
Cells = dict[tuple[str, str, float, int], dict[str, float]]


def read_cells(stores: Iterable[Path]) -> Cells:
    """What every rule gave in the cells that were swept with auto and all other rules."""
    cells: Cells = {}
    for store in stores:
        for record in sm.SweepResult.load(store).records:
            cell = record.cell
            if record.top1_repaired is not None:
                key = (cell.network, cell.repair, cell.sparsity, cell.seed)
                cells.setdefault(key, {})[cell.rule] = 100 * record.top1_repaired
    rules = {AUTO}.union(*(found for found in cells.values() if AUTO in found))
    return {key: cells[key] for key in sorted(cells) if rules <= cells[key].keys()}


def table(cells: Cells) -> list[str]:
    """Lines of a Markdown table, and what they come to."""
    plain = sorted(set(next(iter(cells.values()))) - {AUTO})
    groups: dict[tuple[str, str, float], list[dict[str, float]]] = {}
    for key, found in cells.items():
        groups.setdefault(key[:3], []).append(found)
    lines = [
        f"| network | repair | sparsity | seeds | {' | '.join(plain)} | auto | over the best |",
        "|---" * (6 + len(plain)) + "|",
    ]
    rows = {place: _means(found, plain) for place, found in groups.items()}
    for (network, repair, sparsity), means in rows.items():
        seeds = len(groups[network, repair, sparsity])
        gain = means[AUTO] - max(means[rule] for rule in plain)
        lines.append(
            f"| {network} | {repair} | {sparsity:g} | {seeds} | {_shown(means)} | {gain:+.1f} |"
        )
    overall = _means(list(rows.values()), plain)
    lines.append(f"| mean of these |  |  |  | {_shown(overall)} |  |")
    best = max(plain, key=lambda rule: overall[rule])
    worst = min(f[AUTO] - max(f[rule] for rule in plain) for f in cells.values())
    lines += [
        "",
        f"Best plain rule on average: {best}; auto is {overall[AUTO] - overall[best]:+.2f} points "
        f"over it. Single cell and seed with the least over its best plain rule: {worst:+.2f}.",
    ]
    return lines


def _means(found: Sequence[Mapping[str, float]], plain: Sequence[str]) -> dict[str, float]:
    return {rule: mean(f[rule] for f in found) for rule in (*plain, AUTO)}


def _shown(means: Mapping[str, float]) -> str:
    return " | ".join(f"{value:.1f}" for value in means.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", type=Path, nargs="+", help="stores of sweeps")
    cells = read_cells(parser.parse_args().stores)
    print("\n".join(table(cells)) if cells else "no cell was swept with rule auto")


if __name__ == "__main__":
    main()
