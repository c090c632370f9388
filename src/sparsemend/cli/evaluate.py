"""sparsemend evaluate: top-1 accuracy on the test split."""

from __future__ import annotations

import sparsemend as sm
from sparsemend.cli._command import Given, command
from sparsemend.cli._options import DATA, LOADING, MODEL, OFFLOAD, WEIGHTS
from sparsemend.cli._output import print_json
from sparsemend.cli._source import load_source
from sparsemend.recipe.defaults import EVALUATION_BATCH_SIZE
from sparsemend.recipe.options import BATCH_SIZE, LIMIT


@command(
    MODEL,
    DATA,
    WEIGHTS,
    LIMIT,
    *LOADING,
    OFFLOAD,
    BATCH_SIZE.but(default=EVALUATION_BATCH_SIZE),
)
def evaluate(given: Given) -> None:
    """Measure top-1 accuracy on the test split.

    Example: sparsemend evaluate --model cifar_resnet20 --weights W.safetensors --data cifar10/
    """
    source = load_source(given)
    result = sm.evaluate(source.model, source.test(given.limit), offload=source.offload)
    if given.json:
        print_json({"model": given.model, "top1": result.top1, "count": result.count})
    else:
        print(result)
