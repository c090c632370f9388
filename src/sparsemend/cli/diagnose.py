"""sparsemend diagnose: Relative Repairability of every layer."""

from __future__ import annotations

from pathlib import Path

import sparsemend as sm
from sparsemend.cli._command import Given, command
from sparsemend.cli._options import DATA, LOADING, MODEL, OFFLOAD, WEIGHTS
from sparsemend.cli._output import check_out, print_json
from sparsemend.cli._source import describe_sizes, load_source
from sparsemend.diagnosis import WEIGHTINGS
from sparsemend.masks import default_mask
from sparsemend.operators import OPERATORS
from sparsemend.recipe import defaults
from sparsemend.recipe.options import (
    CALIBRATION_SIZE,
    LAYERS,
    MASK,
    REPAIR,
    SEED,
    STRUCTURE,
    Option,
)
from sparsemend.sweeps.inputs import sizes_of

_ONE = "One of {choices}."


@command(
    MODEL,
    DATA,
    WEIGHTS,
    REPAIR.but(help=_ONE, default=defaults.DIAGNOSED_REPAIR, choices=lambda: OPERATORS),
    MASK.but(help=_ONE, default=default_mask(False).name),
    Option("sensitivities", bool, "Measure them too, for rule sensitivity.", False),
    Option("weighting", str, f"{' or '.join(WEIGHTINGS)}.", defaults.WEIGHTING),
    *STRUCTURE,
    CALIBRATION_SIZE,
    SEED,
    Option("out", Path, "Write here, as .json or .npz."),
    *LOADING,
    OFFLOAD,
)
def diagnose(given: Given) -> None:
    """Show, layer by layer, what pruning damages and how much of it a repair undoes.

    Example: sparsemend diagnose --model digits --data digits --out diagnosis.json
    """
    check_out(given.out, ".json", ".npz")
    source = load_source(given)
    size, _ = sizes_of(source.data, given.calibration_size, 0)
    seen = source.calibration(size, given.seed)
    calibration = sm.calibrate(source.model, seen, **given.only(LAYERS), offload=source.offload)
    diagnosis = sm.diagnose(
        source.model,
        calibration,
        given.repair,
        mask=given.mask,
        pattern=given.pattern,
        weighting=given.weighting,
        batches=seen if given.sensitivities else None,
        offload=source.offload,
    )
    if given.out is not None:
        diagnosis.save(given.out)
    if given.json:
        print_json(diagnosis.to_dict())
        return
    print(diagnosis)
    print(describe_sizes(source.data, size))
    if given.out is not None:
        print(f"wrote {given.out}")
