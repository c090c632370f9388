"""sparsemend export: a sparse network in a format that is smaller or runs elsewhere."""

from __future__ import annotations

from pathlib import Path

import sparsemend as sm
from sparsemend.cli._command import Given, command
from sparsemend.cli._options import DATA, LOADING, MODEL, WEIGHTS
from sparsemend.cli._output import print_json
from sparsemend.cli._source import load_model, load_source
from sparsemend.exports.formats.registry import FORMATS, format_named
from sparsemend.packed import DTYPES
from sparsemend.recipe.options import BATCH_SIZE, SEED, Option


@command(
    MODEL,
    DATA.but(required=False, default=None,
             help=f"{DATA.help} The shape of its inputs is that of the export; "
                  "without it, packed holds the weights alone."),
    WEIGHTS,
    Option("format", str, f"{', '.join(FORMATS)}; default {{default}}.", "packed"),
    Option("out", Path, "File, or folder for c, to write.", required=True),
    Option("dtype", str, f"Of values in packed: {', '.join(DTYPES)}; default {{default}}.",
           "float16"),
    *LOADING,
    BATCH_SIZE.but(default=1),
    SEED,
)  # fmt: skip
def export(given: Given) -> None:
    """Write a sparse network for the runtime, for other runtimes, or as C; and check it.

    Example: sparsemend export --model digits --weights sparse.safetensors --data digits
    --out digits.packed
    """
    format_named(given.format)
    if given.data is None:
        loaded, example = load_model(given), None
    else:
        source = load_source(given)
        loaded = source.loaded
        (example, *_) = source.calibration(given.batch_size, given.seed)
    facts = {key: value for key, value in loaded.metadata.items() if key != "format"}
    facts.setdefault("architecture", given.model)
    done = sm.export(
        loaded.model.cpu(),
        given.out,
        given.format,
        example=example,
        dtype=given.dtype,
        metadata=facts,
    )
    if given.json:
        print_json(
            {
                "path": str(done.path),
                "format": done.format,
                "size": done.size,
                "dense_size": done.dense_size,
                "error": done.error,
            }
        )
    else:
        print(done)
