"""sparsemend allocate: how many weights each layer keeps."""

from __future__ import annotations

from pathlib import Path

import sparsemend as sm
from sparsemend.allocation import RULES, needs_diagnosis
from sparsemend.cli._command import Given, command
from sparsemend.cli._options import DATA, LOADING, MODEL, WEIGHTS
from sparsemend.cli._output import print_json
from sparsemend.cli._source import load_model, load_source
from sparsemend.recipe import defaults
from sparsemend.recipe.options import CALIBRATION_SIZE, REPAIR, RULE, SEED, SPARSITY, Option


def _diagnosed() -> tuple[str, ...]:
    return (" and ".join(name for name, rule in RULES.items() if rule.needs == "diagnosis"),)


@command(
    MODEL,
    SPARSITY,
    RULE.but(help="One of {choices}.", default=defaults.PLAIN_RULE),
    Option("diagnosis", Path, "From sparsemend diagnose, for {choices}.", choices=_diagnosed),
    WEIGHTS,
    DATA.but(help="To diagnose with, where a rule needs it.", required=False),
    REPAIR.but(help="Operator to diagnose with.", default=defaults.DIAGNOSED_REPAIR),
    CALIBRATION_SIZE,
    SEED,
    *LOADING,
)
def allocate(given: Given) -> None:
    """Divide a global budget of kept weights over the layers.

    Example: sparsemend allocate --model digits --sparsity 0.9 --rule erk
    """
    found = None if given.diagnosis is None else sm.Diagnosis.load(given.diagnosis)
    if found is None and needs_diagnosis(given.rule) and given.data is not None:
        source = load_source(given)
        network = source.model
        calibration = sm.calibrate(network, source.calibration(given.calibration_size, given.seed))
        found = sm.diagnose(network, calibration, given.repair)
    else:
        network = load_model(given).model
    allocation = sm.allocate(network, given.sparsity, given.rule, diagnosis=found)
    if given.json:
        print_json(allocation.to_dict())
    else:
        print(allocation)
