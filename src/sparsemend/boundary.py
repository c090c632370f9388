"""What public functions take and raise: arguments of the annotated kinds, and one type of error."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
import torch
from torch import Tensor, nn

from sparsemend.errors import RAISED, SparsemendError, raised_by

P = ParamSpec("P")
R = TypeVar("R")

# Want of memory: whoever catches these makes room and tries again. And warnings that somebody has
# made errors.
PASSED_ON = (MemoryError, torch.OutOfMemoryError, Warning)

# Annotation → what else is taken for it.
_TAKEN: dict[Any, tuple[type, ...]] = {
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
    bool: (bool, np.bool_),
    Sequence: (Iterable,),  # arrays and tensors as well
}
_CALLED: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    NoneType: "None",
    os.PathLike: "a path",
    Mapping: "a mapping",
    Tensor: "a tensor",
    nn.Module: "a torch.nn.Module",
}
# Where classes are protocols that know their instances.
_ABSTRACT = ("collections.abc", "typing", "os")
# Of these every element is looked at; other iterables can be read only once, or are large.
_LISTS = (list, tuple, set, frozenset, dict, range, str)


class HasModel(Protocol):
    """What carries a network, such as a result of ``compress``."""

    @property
    def model(self) -> nn.Module: ...


def network_of(network: nn.Module | HasModel) -> nn.Module:
    """The network itself."""
    return network if isinstance(network, nn.Module) else network.model


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function one that users call.

    Arguments of other kinds than those annotated are refused before anything else happens.
    Whatever goes wrong within is a ``SparsemendError``, chained to what was raised; want of memory
    and warnings that were made errors are passed on as they are.
    """
    refused = functools.cache(lambda: _Kinds(function))

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        refused().check(args, kwargs)
        try:
            with _own_modes():
                return function(*args, **kwargs)
        except (SparsemendError, *PASSED_ON):
            raise
        except RAISED as error:
            raise _told(function.__qualname__, error) from error

    return called


_device: ContextVar[torch.device | None] = ContextVar("device", default=None)


@contextmanager
def callers_device() -> Iterator[None]:
    """For what is the caller's own, such as a network: the default device that the caller set."""
    device = _device.get()
    with nullcontext() if device is None else device:
        yield


@contextmanager
def _own_modes() -> Iterator[None]:
    """Leave modes of the caller's that round what is computed, or forbid to train on it.

    New tensors are on the CPU unless they say another device, whatever ``torch.set_default_device``
    or ``with torch.device(...)`` say.
    """
    with ExitStack() as modes:
        default = torch.get_default_device()
        if default.type != "cpu":
            modes.callback(_device.reset, _device.set(default))
            modes.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            modes.enter_context(torch.inference_mode(mode=False))
            modes.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        yield


def _told(name: str, error: BaseException) -> SparsemendError:
    if isinstance(error, OSError) and error.filename is not None:
        path = os.fsdecode(error.filename)
        return SparsemendError(f"{name} failed ({error.strerror})", path, fix="choose another path")
    return SparsemendError(
        f"{name} failed: {raised_by(error)}",
        fix="check what was passed to it; the error that this one was caused by says more",
    )


class _Kinds:
    """The annotations of a function's parameters."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._name = function.__qualname__
        self._signature = inspect.signature(function)
        hints = get_type_hints(function)
        self._hints = {name: hints[name] for name in self._signature.parameters if name in hints}

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise for the first argument that is of another kind.

        Raises
        ------
        SparsemendError
            Names it, and what is allowed.
        TypeError
            If the function has no such parameters at all, as Python itself does.
        """
        try:
            given = self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self._name}() {error}") from None
        for name, hint in self._hints.items():
            variadic = self._signature.parameters[name].kind
            if name not in given or variadic is inspect.Parameter.VAR_KEYWORD:
                continue
            values = given[name] if variadic is inspect.Parameter.VAR_POSITIONAL else [given[name]]
            for value in values:
                if not _fits(value, hint):
                    held = hint is nn.Module and isinstance(getattr(value, "model", 0), nn.Module)
                    raise SparsemendError(
                        f"{name} is of the wrong kind",
                        value,
                        _describe(hint),
                        "pass its .model" if held else "",
                    )


def _fits(value: object, hint: Any) -> bool:
    if hint is Any or isinstance(hint, TypeVar):
        return True
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is Callable:
        return callable(value)
    if getattr(origin, "_is_protocol", False) and origin.__module__ not in _ABSTRACT:
        return all(hasattr(value, name) for name in _members(origin))
    if not isinstance(value, _TAKEN.get(origin, origin)) and not (
        origin in (Iterable, Sequence) and _is_numbered(value)
    ):
        return False
    if isinstance(value, bool | np.bool_) and origin in (int, float):
        return False
    if origin in (Iterable, Sequence, Collection, tuple):
        if isinstance(value, bytes) or getattr(value, "ndim", 1) == 0:  # a lone number
            return False
        if isinstance(value, np.ndarray | Tensor) and parts:
            return _fits(0.0, parts[0])
        if isinstance(value, _LISTS) and parts:
            return all(_fits(element, parts[0]) for element in value)
    return True


def _is_numbered(value: object) -> bool:
    """Whether it gives elements by number, as data sets do that have no iterator."""
    return (
        hasattr(value, "__len__") and hasattr(value, "__getitem__") and not hasattr(value, "keys")
    )


def _members(protocol: type) -> set[str]:
    """What an object must have to be of a protocol."""
    named = (*vars(protocol), *vars(protocol).get("__annotations__", ()))
    return {name for name in named if not name.startswith("_")}


def _describe(hint: Any) -> str:
    """The allowed kinds, in words."""
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        # What can be left out comes last.
        described = [_describe(part) for part in sorted(parts, key=lambda part: part is NoneType)]
        return " or ".join(dict.fromkeys(described))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin is Callable:
        return "a function"
    if origin in (Iterable, Sequence, Collection, tuple):
        element = parts[0] if parts else Any
        return "an iterable" if element is Any else f"an iterable, each {_describe(element)}"
    if origin in _CALLED:
        return _CALLED[origin]
    name = origin.__name__
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"
