"""sparsemend bench: how fast a sparse network runs, beside dense runtimes."""

from __future__ import annotations

import sparsemend as sm
from sparsemend.cli._command import Given, command
from sparsemend.cli._options import DATA, LOADING, MODEL, WEIGHTS
from sparsemend.cli._output import print_json
from sparsemend.cli._source import load_source
from sparsemend.recipe.options import BATCH_SIZE, SEED, Option
from sparsemend.timing.engines import ENGINES
from sparsemend.timing.measuring import SECONDS

ENGINE = Option(
    "engine",
    str,
    f"One to time; repeat for several: {', '.join(ENGINES)}. Default: all that are installed, "
    "without torch.compile.",
    several=True,
)


@command(
    MODEL,
    DATA,
    WEIGHTS,
    Option("threads", int, "For every engine; default {default}.", 1),
    Option("seconds", float, "About how long to measure; default {default}.", SECONDS),
    ENGINE,
    Option("clock", str, "wall, or cpu: time of the process alone, on a busy machine.", "wall"),
    *LOADING,
    BATCH_SIZE.but(default=1),
    SEED,
)
def bench(given: Given) -> None:
    """Time a network on the sparse runtime, PyTorch, ONNX Runtime and OpenVINO, in turns.

    Example: sparsemend bench --model digits --weights sparse.safetensors --data digits
    """
    source = load_source(given)
    (example, *_) = source.calibration(given.batch_size, given.seed)
    timing = sm.bench(
        source.model.cpu(),
        example,
        threads=given.threads,
        seconds=given.seconds,
        engines=given.engine or None,
        clock=given.clock,
    )
    if given.json:
        print_json(timing.to_dict())
    else:
        print(timing)
