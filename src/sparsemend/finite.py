"""Whether numbers are finite, and where those that are not began."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from sparsemend.errors import SparsemendError

_PLURAL = {
    "weight": "weights",
    "bias": "biases",
    "running_mean": "running means",
    "running_var": "running variances",
}
FIX_ACTIVATIONS = (
    "check the inputs and the network; in float16, whose numbers end at 65,504, "
    "use model.float() or model.bfloat16()"
)


class NotFiniteError(SparsemendError):
    """A number is NaN or infinite; whoever tries several ways goes on with the others."""


def is_finite(x: Tensor) -> bool:
    """Whether no element is NaN or infinite; one reading of the tensor where that is so."""
    if not (x.is_floating_point() or x.is_complex()):
        return True
    # A sum is finite only if all of its terms are. Finite terms may still have an infinite one.
    return bool(x.detach().sum().isfinite()) or bool(x.isfinite().all())


def check_finite(what: str, *tensors: Tensor, fix: str = "") -> None:
    """Raise unless all numbers are finite.

    Parameters
    ----------
    what
        Names them, for the error's text: "the gains of layer 'fc'".
    tensors
        The numbers.
    fix
        What the user can do about it.

    Raises
    ------
    NotFiniteError
        Says how many are not.
    """
    if not all(map(is_finite, tensors)):
        raise NotFiniteError(f"{what} are not finite: {_share(*tensors)}", fix=fix)


def check_overflow(what: str, values: Tensor) -> None:
    """Raise unless sums over finite activations are finite."""
    check_finite(what, values, fix="scale the inputs down: their squares overflow")


def check_network(model: nn.Module, which: str = "the network") -> None:
    """Raise unless parameters and statistics of normalisations are finite, variances not negative.

    Parameters
    ----------
    model
        The network. Parameters that are not initialised yet are left out.
    which
        Names it, for the error's text.

    Raises
    ------
    NotFiniteError
        Names the layer.
    """
    fix = "load finite weights, such as those of an earlier checkpoint"
    fix = fix if which == "the network" else f"found in {which}"
    for name, module in model.named_modules():
        owner = f"layer {name!r}" if name else "the network"
        held: dict[str, Tensor | None] = dict(module._parameters)
        if isinstance(module, _NormBase):
            held |= {key: module._buffers.get(key) for key in ("running_mean", "running_var")}
        for key, value in held.items():
            if value is None or is_lazy(value) or value.is_meta:
                continue
            what = _PLURAL.get(key, key)
            if not is_finite(value):
                raise NotFiniteError(
                    f"{owner} has NaN or infinite {what}: {_share(value)}", fix=fix
                )
            if key == "running_var" and not value.is_complex() and bool((value < 0).any()):
                raise NotFiniteError(f"{owner} has negative {what}", float(value.min()), "≥ 0", fix)


@contextmanager
def traced(model: nn.Module, run: Callable[[], object]) -> Iterator[None]:
    """Let an error about activations name the module in which they stopped being finite.

    Parameters
    ----------
    model
        The network.
    run
        Runs it on the batch at work, once more; only where something within is not finite.
    """
    try:
        yield
    except NotFiniteError as error:
        began = _origin(model, run)
        if began is None:  # activations are finite, but not what is computed from them
            raise
        raise NotFiniteError(began, fix=FIX_ACTIVATIONS) from error


def check_outputs(model: nn.Module, output: Tensor, run: Callable[[], object]) -> None:
    """Raise where a network's output holds NaN or +infinity; −infinity rules a class out.

    Parameters
    ----------
    model
        The network.
    output
        What it returned.
    run
        Runs it on the same batch, once more; only to find where the numbers began.
    """
    if is_finite(output) or not bool((output.isnan() | output.isposinf()).any()):
        return
    with traced(model, run):
        check_finite("the outputs of the network", output, fix=FIX_ACTIVATIONS)


def _origin(model: nn.Module, run: Callable[[], object]) -> str | None:
    """What was the first not to be finite in a run, in words; None where everything was."""
    found: list[str] = []

    def look(name: str, what: str, values: object) -> None:
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
        if not found and not all(map(is_finite, tensors)):
            found.append(f"{what} {name} are not finite: {_share(*tensors)}")

    def before(name: str, module: nn.Module, args: Any) -> None:  # noqa: ARG001
        look(name, "the inputs of", args)

    def after(name: str, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001
        look(name, "the outputs of", output)

    handles = []
    try:
        for path, module in model.named_modules():
            name = f"layer {path!r} ({type(module).__name__})" if path else "the network"
            handles.append(module.register_forward_pre_hook(partial(before, name)))
            handles.append(module.register_forward_hook(partial(after, name)))
        with torch.no_grad():
            run()
    except NotFiniteError:
        pass  # whoever watches the run as well; what came first is found
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _share(*tensors: Tensor) -> str:
    bad = sum(int((~tensor.isfinite()).sum()) for tensor in tensors)
    total = sum(tensor.numel() for tensor in tensors)
    return f"{bad:,} of {total:,} {'is' if bad == 1 else 'are'} NaN or infinite"
