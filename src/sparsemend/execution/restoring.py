"""Give a network back as it was when what changes it in place fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy


@contextmanager
def restored_on_error(model: nn.Module) -> Iterator[None]:
    """On any error, an interrupt too, undo what happened to a network within.

    Parameters and buffers get their values and ``requires_grad`` back, added ones are removed and
    removed ones put back; so are training flags and the state of PyTorch's random numbers. Every
    tensor stays the object that it was.

    Held in memory within: one copy of all parameters and buffers.

    Parameters
    ----------
    model
        The network that is changed within.
    """
    state = _State(model)
    try:
        yield
    except BaseException:
        state.restore()
        raise


@contextmanager
def buffers_kept(*models: nn.Module) -> Iterator[None]:
    """Undo what forward passes within do to buffers, such as counters and running means.

    Buffers of BatchNorms are left out: in evaluation mode only the library changes them.

    Held in memory within: one copy of the other buffers.
    """
    kept = [
        (module, name, buffer, buffer.detach().clone(), _version(buffer))
        for model in models
        for module in model.modules()
        if not isinstance(module, _BatchNorm)
        for name, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer)
    ]
    try:
        yield
    finally:
        for module, name, buffer, before, version in kept:
            if _version(buffer) != version:
                with torch.no_grad():
                    buffer.copy_(before)
            module._buffers[name] = buffer


def _version(tensor: Tensor) -> int | None:
    """A number that grows where a tensor changes; None of inference tensors, which cannot."""
    return None if tensor.is_inference() else tensor._version


class _State:
    """What there was in every module of a network."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [
            (module, dict(module._parameters), dict(module._buffers), module.training)
            for module in model.modules()
        ]
        # Tied tensors once.
        held: dict[int, Tensor] = {}
        for _, parameters, buffers, _ in self._modules:
            for tensor in (*parameters.values(), *buffers.values()):
                if tensor is not None and not is_lazy(tensor):
                    held[id(tensor)] = tensor
        self._values = [
            (tensor, tensor.detach().clone(), tensor.requires_grad) for tensor in held.values()
        ]
        self._random = torch.get_rng_state()
        devices = {tensor.device for tensor in held.values() if tensor.is_cuda}
        self._cuda_random = [(device, torch.cuda.get_rng_state(device)) for device in devices]

    def restore(self) -> None:
        for module, parameters, buffers, training in self._modules:
            module._parameters.clear()
            module._parameters.update(parameters)
            module._buffers.clear()
            module._buffers.update(buffers)
            module.training = training
        with torch.no_grad():
            for tensor, value, requires_grad in self._values:
                tensor.copy_(value)
                tensor.requires_grad_(requires_grad)
        torch.set_rng_state(self._random)
        for device, state in self._cuda_random:
            torch.cuda.set_rng_state(state, device)
