"""What a sweep has to do: every cell with what its result depends on, and how long it takes."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from sparsemend.allocation import needs_diagnosis, parse_forced
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import batch_size, count_inputs
from sparsemend.layers import LayerSet, select_layers
from sparsemend.recipe import AUTO, SEARCHES, Recipe, parse_budget
from sparsemend.recipe.defaults import PATTERN
from sparsemend.recipe.training import parse_distill
from sparsemend.repairs import parse_repair, unshiftable
from sparsemend.sweeps.fingerprint import (
    diagnosis_fingerprint,
    inputs_fingerprint,
    labelled_fingerprint,
    model_fingerprint,
)
from sparsemend.sweeps.grid import Grid
from sparsemend.sweeps.inputs import Network
from sparsemend.sweeps.records import Cell, Record, Settings, Task


def plan_tasks(
    networks: Sequence[Network],
    grid: Grid,
    scope: str,
    budget: float | str | None = None,
    *,
    new_biases: bool = False,
    distill: float | str | None = None,
) -> list[Task]:
    """Every cell of the grid for every network; those that share work follow each other.

    Draws all inputs once, for their fingerprints.

    Raises
    ------
    SparsemendError
        For anything that no cell could be computed with: unknown rules, masks, repairs or
        scopes, ones that do not go together, sparsities out of range, and bad inputs; for a
        search budget that is none, or that no rule of the grid spends; for a length of training
        that is none, or that no repair of the grid has a use for; for repair ``best`` and
        rule ``auto`` without the held-out inputs that they choose by; for a network whose outputs
        cannot be judged.
    """
    limit = str(parse_budget(budget))
    if budget is not None and AUTO not in grid.rules:
        raise SparsemendError(
            "none of the rules searches, so there is no use for a search budget",
            budget,
            f"rule {AUTO!r} among the rules",
        )
    formulas = {repair: parse_repair(repair) for repair in grid.repairs}
    trained = {name for name, formula in formulas.items() if formula.training != "never"}
    if distill is not None and not trained:
        parse_distill(distill, next(iter(formulas.values())))  # raises
    cells = {}
    for network in networks:
        asked = grid.cells(network.name)
        cells[network.name] = check_cells(network.model, asked, scope, network.chosen.pattern.name)
    tasks = []
    for network in networks:
        settings = _settings(network, grid, scope, new_biases)
        given = "" if network.diagnosis is None else diagnosis_fingerprint(network.diagnosis)
        for cell in cells[network.name]:
            own = dataclasses.replace(
                settings[cell.seed],
                budget=limit if cell.rule == AUTO else "",
                diagnosis=given if needs_diagnosis(cell.rule) else "",
                distill=_training(cell.repair, distill),
            )
            task = Task(cell, own)
            _check_heldout(task)
            tasks.append(task)
    return tasks


def _training(repair: str, distill: float | str | None) -> str:
    """How long a repair trains; empty where it does not."""
    formula = parse_repair(repair)
    asked = None if formula.training == "never" else distill
    settings = parse_distill(asked, formula)
    return "" if settings is None else str(settings)


def check_cells(
    model: nn.Module, cells: Iterable[Cell], scope: str, pattern: str = PATTERN
) -> list[Cell]:
    """The cells with their masks spelled out, once each; refuses what compress would refuse."""
    checked = []
    for cell in cells:
        how = (cell.rule, cell.mask, cell.repair, scope)
        recipe = Recipe(cell.sparsity, *how, pattern=pattern, target=cell.parsed_target)
        recipe.check(model)
        checked.append(
            dataclasses.replace(
                cell,
                sparsity=cell.sparsity if recipe.sparsity is None else recipe.sparsity,
                mask=recipe.mask_rule.name,
                repair=str(recipe.formula),
            )
        )
    return list(dict.fromkeys(checked))


def _check_heldout(task: Task) -> None:
    """Refuse a choice by held-out inputs where there are none."""
    if task.settings.heldout_size == 0 and task.recipe.judges:
        raise SparsemendError(
            f"rules {' and '.join(map(repr, SEARCHES))} and repairs 'best' and 'distill' choose by "
            "held-out inputs, of which there are none",
            fix="hold some out, or sweep other rules and repairs",
        )


def _settings(network: Network, grid: Grid, scope: str, new_biases: bool) -> dict[int, Settings]:
    """Seed → what the cells of this seed depend on."""
    labelled = network.inputs.test()
    test, test_size = ("", 0) if labelled is None else labelled_fingerprint(labelled)
    weights = model_fingerprint(network.model)
    settings: dict[int, Settings] = {}
    for seed in grid.seeds:
        seen, unseen = network.inputs.draw(seed)
        if not settings:
            session = network.session(seen)
            for each in (network.session(unseen), session) if unseen else (session,):
                each.check_outputs()
            _check_forced(session.layers, grid.rules)
            new_biases = new_biases or not unshiftable(network.model, session.layers)
        settings[seed] = Settings(
            scope=scope,
            calibration_size=count_inputs(seen),
            heldout_size=count_inputs(unseen),
            test_size=test_size,
            batch_size=batch_size(seen[0]),
            weights=weights,
            inputs=inputs_fingerprint(seen, unseen),
            test=test,
            judge=network.criterion.name,
            output=str(network.criterion.output),
            new_biases=new_biases,
            include=tuple(sorted(network.chosen.include)),
            exclude=tuple(sorted(network.chosen.exclude)),
            pattern=network.chosen.pattern.name,
        )
    return settings


def _check_forced(layers: LayerSet, rules: Iterable[str]) -> None:
    """Refuse a forced rule that means no layer of the network."""
    for rule in rules:
        if forced := parse_forced(rule):
            select_layers(layers, forced.pattern)


@dataclass(frozen=True)
class Estimate:
    """How long cells will take.

    Attributes
    ----------
    seconds
        Of the cells that are like one in the store, on one worker.
    unknown
        Number of cells that are like none.
    """

    seconds: float
    unknown: int

    def __str__(self) -> str:
        parts = []
        if self.seconds or not self.unknown:
            units = ((1, "seconds"), (60, "minutes"), (3600, "hours"))
            size, unit = next(((n, u) for n, u in units if self.seconds < 90 * n), units[-1])
            parts.append(f"about {self.seconds / size:.1f} {unit} on one worker")
        if self.unknown:
            parts.append(
                f"{self.unknown} cell{'' if self.unknown == 1 else 's'} unlike any in the store, "
                "so their time is not known"
            )
        return ", and ".join(parts)


class Forecast:
    """How long the cells that are left will take, by the median time of like cells.

    Cells are alike that have the same network, mask, repair and sizes, and if there are some,
    the same rule as well.

    Parameters
    ----------
    tasks
        What is left to do.
    finished
        What was done before.
    """

    def __init__(self, tasks: Iterable[Task], finished: Iterable[Record]) -> None:
        self._left = Counter(_kinds(task) for task in tasks)
        self._times: dict[_Kind, list[float]] = {}
        for record in finished:
            if record.settings is not None:
                self._learn(Task(record.cell, record.settings), record.seconds)

    def finish(self, task: Task, seconds: float | None) -> None:
        """Count a task as done; without seconds, nothing is learned from it."""
        self._left[_kinds(task)] -= 1
        if seconds is not None:
            self._learn(task, seconds)

    def count(self, network: str) -> int:
        """Number of a network's cells that are left."""
        return sum(n for (*_, kind), n in self._left.items() if kind[0] == network)

    def estimate(self, network: str | None = None) -> Estimate:
        """Of what is left, of one network or of all."""
        seconds, unknown = 0.0, 0
        for kinds, count in self._left.items():
            if not count or network not in (None, kinds[-1][0]):
                continue
            alike = next((self._times[kind] for kind in kinds if kind in self._times), None)
            if alike is None:
                unknown += count
            else:
                seconds += count * statistics.median(alike)
        return Estimate(seconds, unknown)

    def _learn(self, task: Task, seconds: float) -> None:
        for kind in _kinds(task):
            self._times.setdefault(kind, []).append(seconds)


def estimate(tasks: Iterable[Task], finished: Iterable[Record]) -> Estimate:
    """How long tasks will take, by those that are finished."""
    return Forecast(tasks, finished).estimate()


def telling_first(tasks: Iterable[Task]) -> list[Task]:
    """The same tasks in an order in which it is known early how long all of them take.

    What shares work stays together; there, one of every kind comes first. The first of all pays
    for what they share and tells nothing of its kind, so that has another.
    """
    ordered: list[Task] = []
    known: set[_Kind] = set()
    for _, group in itertools.groupby(tasks, key=sharing):
        telling: list[Task] = []
        others: list[Task] = []
        for number, task in enumerate(group):
            kind = _kinds(task)[-1]
            (others if kind in known else telling).append(task)
            if number:
                known.add(kind)
        ordered += telling + others
    return ordered


def sharing(task: Task) -> tuple[str, int]:
    """What tasks have in common that share work."""
    return task.cell.network, task.cell.seed


_Kind = tuple[object, ...]


def _kinds(task: Task) -> tuple[_Kind, ...]:
    """What tasks are alike that share it, from the closest likeness on."""
    cell, settings = task.cell, task.settings
    sizes = (settings.calibration_size, settings.heldout_size, settings.test_size)
    kind = (cell.network, cell.mask, cell.repair, settings.scope, settings.distill, *sizes)
    if settings.budget:  # a search is like no other cell
        return ((*kind, cell.rule, settings.budget),)
    return ((*kind, cell.rule), kind)
