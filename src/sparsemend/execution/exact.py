"""Numbers of a GPU that are exact to float32, and the same in every run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sparsemend.execution.offload import device_for


@contextmanager
def exact_products(*models: nn.Module) -> Iterator[None]:
    """Compute products of float32 in float32, and add them up in one order.

    Within, networks on a GPU use neither TF32, which rounds factors to ten bits, nor algorithms of
    cuDNN that add as threads happen to end or are chosen by timing. Settings are put back after.

    Parameters
    ----------
    models
        The networks; elsewhere than on a GPU nothing is changed.
    """
    parameters = (next(model.parameters(), None) for model in models)
    if not any(p is not None and device_for(p).type == "cuda" for p in parameters):
        yield
        return
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in _settings()]
    try:
        for owner, name, value in _settings():
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _settings() -> Iterator[tuple[Any, str, Any]]:
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    yield cudnn, "deterministic", True
    yield cudnn, "benchmark", False
    if hasattr(cudnn, "conv"):
        for owner in (cudnn.conv, cudnn.rnn, products):
            yield owner, "fp32_precision", "ieee"
    else:  # before PyTorch 2.9
        for owner in (cudnn, products):
            yield owner, "allow_tf32", False
