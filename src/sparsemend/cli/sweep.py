"""sparsemend sweep: a grid of configurations, and where recoverability ends."""

from __future__ import annotations

from pathlib import Path

import sparsemend as sm
from sparsemend.cli._command import Given, command
from sparsemend.cli._grid import GRID, INTERRUPTED, finish, load_grid, swept
from sparsemend.cli._options import DATA, MODEL, NAME, WEIGHTS
from sparsemend.recipe.options import RULE, TARGETS, Option


@command(
    Option("config", Path, "TOML file of the same options; flags override it."),
    *swept(MODEL, WEIGHTS, DATA, NAME, RULE),
    *GRID,
    *swept(*TARGETS),
    interrupted=INTERRUPTED,
)
def sweep(given: Given) -> None:
    """Compress with every combination of rule, mask, repair, budget and seed.

    Finished cells are in the store: run the same command again to go on after an interruption.

    Example: sparsemend sweep --model digits --data digits --rule erk --rule rr
    --repair batchnorm --sparsity 0.80:0.98:0.02 --store sweep.sqlite
    """
    asked = load_grid(given.values, given.config)
    finish(given, asked, sm.sweep(asked.models, asked.images, **asked.options))
