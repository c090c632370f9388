"""Give one network what another of the same kind has become."""

from __future__ import annotations

import torch
from torch import nn


def adopt(model: nn.Module, source: nn.Module) -> None:
    """Copy every parameter and buffer of ``source`` into ``model``, adding biases it lacks."""
    modules = dict(model.named_modules())
    with torch.no_grad():
        for path, module in source.named_modules():
            own = modules[path]
            for name, value in module._parameters.items():
                present = own._parameters.get(name)
                if present is not None and value is not None:
                    present.copy_(value)
                elif value is not None:
                    own.register_parameter(name, value)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    own._buffers[name].copy_(buffer)
