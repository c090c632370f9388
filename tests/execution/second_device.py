"""A second device on a machine that has none: its tensors are those of the CPU, under seal.

Like those of a GPU, they cannot meet tensors of the CPU in one operation. They have the type
``cpu``, so that everything is computed as on the CPU, to the bit.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sparsemend.execution import lockstep

DEVICE = torch.device("cpu:1")
_aten = torch.ops.aten
# These take tensors of both sides, as on a GPU.
_ACROSS = (
    _aten.copy_.default,
    _aten._to_copy.default,
    _aten.index.Tensor,
    _aten.index_put_.default,
)


class Ledger:
    """What is on the device.

    Attributes
    ----------
    most
        Most bytes at a time.
    """

    def __init__(self) -> None:
        self.most = 0
        self._tensors: Counter[int] = Counter()
        self._bytes: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        """On the device now."""
        return sum(self._bytes.values())

    def enter(self, tensor: Away) -> None:
        memory = tensor.inner.untyped_storage()
        address = memory.data_ptr()
        self._tensors[address] += 1
        self._bytes[address] = memory.nbytes()
        self.most = max(self.most, self.bytes)
        weakref.finalize(tensor, self._leave, address)

    def _leave(self, address: int) -> None:
        self._tensors[address] -= 1
        if not self._tensors[address]:
            del self._bytes[address]


class Away(Tensor):
    """A tensor of the second device."""

    inner: Tensor
    ledger: Ledger

    @staticmethod
    def __new__(cls, inner: Tensor) -> Away:
        self = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        self.inner = inner
        cls.ledger.enter(self)
        return self

    def tolist(self):
        return self.inner.tolist()

    def numpy(self):
        return self.inner.numpy()

    def untyped_storage(self):
        return self.inner.untyped_storage()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = list(_tensors((args, kwargs)))
        if func not in _ACROSS and any(x.dim() and not isinstance(x, Away) for x in tensors):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")
        target = kwargs.get("device")
        if target is not None:
            kwargs["device"] = "cpu"
        result = func(*_each(_opened, args), **_each(_opened, kwargs))
        if target == torch.device("cpu") or not isinstance(tensors[0], Away):
            return tensors[0] if func is _aten.copy_.default else result
        for given in tensors:  # what was changed in place is the same tensor still
            if isinstance(given, Away) and result is given.inner:
                return given
        return _each(_sealed, result)


class _Device(TorchDispatchMode):
    """Makes tensors on the second device."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # for that the compiler would be loaded, which takes seconds

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(isinstance(x, Away) for x in _tensors((args, kwargs))):
            return Away.__torch_dispatch__(func, types, args, kwargs)
        if kwargs.get("device") != DEVICE:
            return func(*args, **kwargs)
        return _each(_sealed, func(*args, **kwargs | {"device": "cpu"}))


def _tensors(values):
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _each(change, values):
    if isinstance(values, tuple | list):
        return type(values)(_each(change, value) for value in values)
    if isinstance(values, dict):
        return {key: _each(change, value) for key, value in values.items()}
    return change(values) if isinstance(values, Tensor) else values


def _opened(tensor):
    return tensor.inner if isinstance(tensor, Away) else tensor


def _sealed(tensor):
    return Away(tensor)


@contextmanager
def second_device(monkeypatch) -> Iterator[Ledger]:
    """Within, :data:`DEVICE` exists, also for runs in lockstep."""
    main = lockstep._Worker._main

    def on_thread(worker) -> None:
        with _Device():
            main(worker)

    def tensor(data, device=None, made=torch.tensor, **options):
        return made(data, **options).to(device or "cpu")

    Away.ledger = Ledger()
    with monkeypatch.context() as patch, _Device():
        patch.setattr(lockstep._Worker, "_main", on_thread)
        patch.setattr(torch, "tensor", tensor)  # reaches no mode
        yield Away.ledger
