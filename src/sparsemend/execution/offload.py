"""Networks larger than the memory of a device: they lie in main memory and compute on the device.

Nothing of a network is moved, replaced or hooked. Its inputs go to the device, and an operation
whose operands lie on both sides gets copies of those that lie in main memory, for as long as it
lasts. So it makes no difference by which module, function or method a weight is used, and there is
nothing to put back after an error.

Held on the device: the weights of one operation, and what is computed with them. That is one
batch's activations, as the network itself keeps them, where batches run one after the other; what
all batches need at the layer at work, and its moments, where layers are worked on one after the
other (calibration, repairs); and, where gradients are taken (``distill``, slopes of rule
``auto``), all weights of a network and the activations of a batch. Weights, moments, masks,
gradients and outputs are kept in main memory.

The device is ambient: a verb says it once, for all that it calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from sparsemend.errors import SparsemendError

HOME = torch.device("cpu")


class Movable(Protocol):
    """What is on some device: a tensor, or several together."""

    def to(self, device: torch.device, /) -> Any: ...


Moved = TypeVar("Moved", bound=Movable)

_device: ContextVar[torch.device | None] = ContextVar("device", default=None)
_thread = threading.local()  # whether its operations are watched

# These take operands of several devices, and say themselves where the result is.
_ACROSS = frozenset(("copy_", "to", "type_as", "__set__", "backward", "grad"))
# These change buffers without counting it as a change of the tensor.
_STATISTICS = frozenset(("batch_norm", "instance_norm"))
_DEVICE = Tensor.device.__get__


@contextmanager
def offloading(device: str | torch.device | None, *models: nn.Module) -> Iterator[None]:
    """Let networks that lie in main memory compute on a device, within ``with``.

    Parameters
    ----------
    device
        Where; None leaves it as it is.
    models
        Networks that will run.

    Raises
    ------
    SparsemendError
        If there is no such device, it is main memory itself, or a network lies elsewhere.
    """
    if device is None:
        yield
        return
    found = check_device(device)
    for model in models:
        _check_home(model)
    with _computing_on(found):
        yield


def at_home() -> AbstractContextManager[None]:
    """Let networks compute where they lie, within ``with``: to time or to trace them."""
    return _computing_on(None)


@contextmanager
def _computing_on(device: torch.device | None) -> Iterator[None]:
    token = _device.set(device)
    try:
        yield
    finally:
        _device.reset(token)


@contextmanager
def streamed() -> Iterator[None]:
    """Where networks are offloaded, bring operands together in all operations of this thread.

    Entered before other modes that watch a network's operations: these then see its own
    parameters.
    """
    device = _device.get()
    if device is None or getattr(_thread, "watched", False):
        yield
        return
    _thread.watched = True
    try:
        with _Streaming(device):
            yield
    finally:
        _thread.watched = False


def check_device(device: str | torch.device) -> torch.device:
    """A device to offload to, with its number.

    Raises
    ------
    SparsemendError
        If there is none on this machine, or networks lie there already.
    """
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SparsemendError(
            "offload is no device of this machine and this build of PyTorch",
            str(device),
            "cuda, cuda:1 …",
        ) from error
    if found.type == "meta" or found == HOME:
        why = "holds no values" if found.type == "meta" else "is where the network lies already"
        raise SparsemendError(f"offload {why}", str(device), "cuda, cuda:1 …", "leave it out")
    return found


def device_for(tensor: Tensor) -> torch.device:
    """Where operations with a network's tensor take place."""
    return _device.get() or tensor.device


def is_offloaded() -> bool:
    """Whether networks lie in main memory and compute elsewhere."""
    return _device.get() is not None


def lent(value: Moved) -> Moved:
    """For work with one layer: on the device, where networks are offloaded; else as it is."""
    device = _device.get()
    moved: Moved = value if device is None else value.to(device)
    return moved


def returned(value: Moved) -> Moved:
    """To be kept: in main memory, where networks are offloaded; else as it is."""
    moved: Moved = value.to(HOME) if is_offloaded() else value
    return moved


class _Streaming(TorchFunctionMode):
    """Gives operations with an operand on the device copies of those in main memory.

    What an operation changes in such a copy is changed in the original.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func == _DEVICE and isinstance(args[0], nn.Parameter) and args[0].device == HOME:
            return self._device  # for networks that make tensors to compute with a parameter
        tensors = list(_tensors((args, kwargs)))
        name = getattr(func, "__name__", "").partition(".")[0]
        if name in _ACROSS or not any(x.device == self._device for x in tensors):
            return func(*args, **kwargs)
        copies = {id(x): (x, x.to(self._device)) for x in tensors if x.device == HOME}
        if not copies:
            return func(*args, **kwargs)
        args, kwargs = tree_map(lambda x: copies.get(id(x), (x, x))[1], (args, kwargs))
        before = [copy._version for _, copy in copies.values()]
        result = func(*args, **kwargs)
        for (original, copy), version in zip(copies.values(), before, strict=True):
            statistics = name in _STATISTICS and not isinstance(original, nn.Parameter)
            if statistics or copy._version != version:
                with torch.no_grad():
                    original.copy_(copy)
                result = original if result is copy else result
        return result


def _tensors(values: object) -> Iterator[Tensor]:
    """The tensors among arguments; quicker than PyTorch's trees, as every operation asks."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _check_home(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device != HOME:
            raise SparsemendError(
                f"offload is for networks in main memory, but {name!r} is on a device",
                str(tensor.device),
                "cpu",
                "leave offload out, or pass model.cpu()",
            )
