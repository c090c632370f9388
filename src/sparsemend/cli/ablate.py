"""sparsemend ablate: what a rule's densities in some layers are worth."""

from __future__ import annotations

import dataclasses

import sparsemend as sm
from sparsemend.cli._command import Given, command
from sparsemend.cli._grid import GRID, INTERRUPTED, finish, load_grid
from sparsemend.cli._options import DATA, MODEL, NAME, WEIGHTS
from sparsemend.layers import CLASSES
from sparsemend.recipe.defaults import BASE_RULE
from sparsemend.recipe.options import BUDGET, RULE, Option


@command(
    Option(
        "force",
        str,
        "Layers: {choices}, or a pattern of names.",
        required=True,
        choices=lambda: CLASSES,
    ),
    Option("source", str, "Rule whose densities these layers get.", flag="--from", required=True),
    MODEL,
    DATA,
    RULE.but(help="Rule of all other layers.", default=BASE_RULE),
    WEIGHTS,
    NAME,
    *(option for option in GRID if option.name != BUDGET.name),
    interrupted=INTERRUPTED,
)
def ablate(given: Given) -> None:
    """Force some layers to another rule's densities, and compare recovery.

    All other layers keep their proportions and make up for the budget. Cells are stored as those
    of a sweep.

    Example: sparsemend ablate --model digits --data digits --force projection --from lamp
    --repair batchnorm --sparsity 0.9 --sparsity 0.95
    """
    swept = {name: value for name, value in given.values.items() if name != RULE.name}
    asked = load_grid(swept)
    result = sm.ablate(
        asked.models,
        asked.images,
        force=given.force,
        source=given.source,
        rule=given.rule,
        **asked.options,
    )
    finish(given, asked, result, lambda: _compared(result))


def _compared(result: sm.AblationResult) -> dict[str, object]:
    """An ablation for machines, besides its sweep."""
    return {
        "layers": {network: list(names) for network, names in result.layers.items()},
        "comparisons": [dataclasses.asdict(found) for found in result.comparisons()],
    }
