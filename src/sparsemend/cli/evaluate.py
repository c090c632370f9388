"""sparsemend evaluate: top-1 accuracy on the test split."""

from __future__ import annotations

import sparsemend as sm
from sparsemend.cli import _options as opt
from sparsemend.cli._output import friendly_errors, print_json


def evaluate(
    model: opt.Model,
    data: opt.Data,
    weights: opt.Weights = None,
    limit: opt.Limit = None,
    num_classes: opt.Classes = None,
    width: opt.Width = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    batch_size: opt.BatchSize = 256,
    device: opt.Device = None,
    json: opt.Json = False,
) -> None:
    """Measure top-1 accuracy on the test split.

    Example: sparsemend evaluate --model cifar_resnet20 --weights W.safetensors --data cifar10/
    """
    with friendly_errors():
        source = opt.load_source(
            model, weights, data, num_classes, width, mean, std, batch_size, device
        )
        result = sm.evaluate(source.model, source.test(limit))
        if json:
            print_json({"model": model, "top1": result.top1, "count": result.count})
        else:
            print(result)
