"""A sweep in words: where each rule's recovery ends, and which rule leads."""

from __future__ import annotations

from collections.abc import Sequence

from sparsemend.errors import printable
from sparsemend.sweeps.records import Cell, Failure, Lead, Measure, Record, Spread, Transition
from sparsemend.sweeps.transition import spread
from sparsemend.targets import Target

_HEAD = ("network", "rule", "mask", "repair", "midpoint", "0.8 to 0.2", "label-free midpoint")


def describe(
    records: Sequence[Record],
    transitions: Sequence[Transition],
    leads: Sequence[Lead],
    failures: Sequence[Failure],
) -> str:
    """The transitions as a table, what targets leave, where rules lead, and what failed.

    Parameters
    ----------
    records
        The finished cells.
    transitions
        Of both measures.
    leads
        Of one measure.
    failures
        Cells without a result.
    """
    parts = [_cells(len(records))]
    targeted = [record for record in records if record.cell.target]
    if len(targeted) < len(records):
        parts += ["", transition_table(transitions)]
    if targeted:
        parts += ["", *target_tables(targeted)]
    if notes := [*undefined(records), *uncovered(records)]:
        parts += ["", *notes]
    if leads:
        parts += ["", f"leading rule by {leads[0].measure} (recovery ahead of the next by up to)"]
        groups = dict.fromkeys((lead.network, lead.mask, lead.repair) for lead in leads)
        for group in groups:
            mine = [x for x in leads if (x.network, x.mask, x.repair) == group]
            stretches = ", ".join(map(_stretch, mine))
            parts.append(printable(f"  {' '.join(group)}: {stretches}"))
    if failures:
        parts += ["", *failure_lines(failures)]
    return "\n".join(parts)


def undefined(records: Sequence[Record]) -> list[str]:
    """In words, where there is no recovery to speak of, one line for every network."""
    lines = {}
    for record in records:
        network = record.cell.network
        if record.guesses:
            lines[network, "accuracy"] = (
                f"{network}: recovery of accuracy is not defined, because the dense network "
                f"(accuracy {record.top1_dense:.4f}) is no better than guessing "
                f"({record.chance:.4f})"
            )
        if record.recovery("agreement") is None:
            lines[network, "agreement"] = (
                f"{network}: recovery without labels is not defined for judge {record.judged!r}"
            )
    return list(lines.values())


def uncovered(records: Sequence[Record]) -> list[str]:
    """In words, how much of a network was not pruned, one line for every network of which some."""
    lines = {}
    for record in records:
        sparsity, overall = record.achieved_sparsity, record.matrix_sparsity
        if overall is not None and overall < sparsity:
            lines[record.cell.network] = (
                f"{record.cell.network}: {overall / sparsity:.1%} of all weights that the network "
                "multiplies with are pruned layers; of these is the sparsity"
            )
    return list(lines.values())


def failure_lines(failures: Sequence[Failure]) -> list[str]:
    """Each error once, with the first of its cells."""
    cells: dict[str, list[Cell]] = {}
    for failure in failures:
        cells.setdefault(failure.error, []).append(failure.cell)
    lines = [f"{_cells(len(failures))} failed"]
    for error, having in cells.items():
        more = f" and {len(having) - 1} more" if len(having) > 1 else ""
        first, why = printable(str(having[0])), printable(error, keep="\n")
        lines.append(f"  {first}{more}: {why}")
    return lines


def transition_table(transitions: Sequence[Transition]) -> str:
    """One line per (network, rule, mask, repair): where recovery passes 0.5, and 0.8 to 0.2.

    Mean ± standard deviation over seeds; by accuracy, and the midpoint by agreement beside it.
    Without labels, all by agreement.
    """
    agreement = {_whose(t): t for t in transitions if t.measure == "agreement"}
    accuracy = {_whose(t): t for t in transitions if t.measure == "accuracy"}
    rows: list[tuple[str, ...]] = [_HEAD]
    for whose in dict.fromkeys((*agreement, *accuracy)):
        label_free = agreement.get(whose)
        shown = accuracy.get(whose) or agreement[whose]
        band = f"{_mean(shown.start)} to {_mean(shown.end)}"
        free = "-" if label_free is None else spread_text(label_free.midpoint)
        rows.append((*whose, spread_text(shown.midpoint), band, free))
    title = "recovery passes one half at this sparsity (-: not within the sweep)"
    if not accuracy:
        title += "; no labels: by agreement with the dense network"
    return "\n".join([title, *columns(rows)])


def target_tables(records: Sequence[Record]) -> list[str]:
    """For every kind of target a line per (network, rule, mask, repair): recovery at each limit.

    Mean ± standard deviation over seeds; by accuracy, and without labels by agreement.
    """
    labelled = any(record.recovery("accuracy") is not None for record in records)
    measure: Measure = "accuracy" if labelled else "agreement"
    kinds: dict[str, dict[float, str]] = {}
    found: dict[tuple[str, ...], dict[str, list[float | None]]] = {}
    for record in records:
        cell, target = record.cell, Target.parse(record.cell.target)
        kinds.setdefault(target.kind.argument, {})[target.limit] = target.kind.text(target.limit)
        line = (target.kind.argument, cell.network, cell.rule, cell.mask, cell.repair)
        at = found.setdefault(line, {}).setdefault(target.kind.text(target.limit), [])
        at.append(record.recovery(measure))
    lines: list[str] = []
    for argument, limits in kinds.items():
        texts = [limits[limit] for limit in sorted(limits)]
        rows = [(*_HEAD[:4], *texts)]
        rows += [
            (*line[1:], *(spread_text(spread(by_limit.get(text, ()))) for text in texts))
            for line, by_limit in found.items()
            if line[0] == argument
        ]
        lines += [*([""] if lines else []), f"recovery by {measure} at {argument}", *columns(rows)]
    return lines


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of aligned columns."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in shown]


def _stretch(lead: Lead) -> str:
    margin = "" if lead.margin is None else f" ({lead.margin:.3f})"
    return f"{lead.rule} {lead.start:.4g} to {lead.end:.4g}{margin}"


def _whose(transition: Transition) -> tuple[str, str, str, str]:
    return (transition.network, transition.rule, transition.mask, transition.repair)


def _mean(spread: Spread) -> str:
    return "-" if spread.mean is None else f"{spread.mean:.4f}"


def spread_text(spread: Spread) -> str:
    """Mean, and where there are several seeds, standard deviation and their number."""
    if spread.mean is None:
        return "-"
    if spread.std is None:
        return f"{spread.mean:.4f}"
    return f"{spread.mean:.4f} ± {spread.std:.4f} ({spread.count})"


def _cells(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"
