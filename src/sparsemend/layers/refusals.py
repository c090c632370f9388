"""Networks that cannot be pruned as they are: refused by name before any work, with the way out."""

from __future__ import annotations

import itertools
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch, call, cut, evaluation_mode
from sparsemend.execution.copies import copied
from sparsemend.layers.kinds import is_layer
from sparsemend.layers.operand import address_of, span_of

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
# What networks call before they are quantised is defined among these.
_FLOATING = ("FloatFunctional", "FXFloatFunctional")
# Others are for storage alone: PyTorch neither adds nor multiplies with them.
_COMPUTING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Inputs that a copy is tried with.
_TRIED_INPUTS = 2


def refuse_unsupported(model: nn.Module) -> None:
    """Refuse modules whose weights cannot be changed, or whose layers cannot be paused at.

    Raises
    ------
    SparsemendError
        For compiled, scripted, traced, quantised and sharded modules; names the module.
    """
    if not isinstance(model, nn.Module):
        raise SparsemendError("the network is no module", model, "a torch.nn.Module")
    for name, module in model.named_modules():
        what = f"module {name!r}" if name else "the network"
        _refuse_compiled(name, what, module)
        if isinstance(module, torch.jit.ScriptModule):
            raise SparsemendError(
                f"{what} is a scripted or traced module ({type(module).__name__})",
                allowed="eager modules",
                fix="pass the eager network that it was made from",
            )
        if _is_quantised(module):
            raise SparsemendError(
                f"{what} is quantised ({type(module).__module__}.{type(module).__name__})",
                allowed="floating-point weights",
                fix="compress the network before it is quantised",
            )
        _refuse_sharded(what, module)
        _refuse_lazy(name, module)
    _refuse_shared_memory(model)


def _refuse_shared_memory(model: nn.Module) -> None:
    """Refuse parameters that share elements without being one: no copy and no file keeps that."""
    where: dict[int, list[tuple[str, Tensor]]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.numel() and (address := address_of(parameter)):
            where[address].append((name, parameter.detach()))
    for together in where.values():
        together.sort(key=lambda named: named[1].storage_offset())
        for (name, one), (other, two) in itertools.pairwise(together):
            if one.storage_offset() + span_of(one) > two.storage_offset():
                raise SparsemendError(
                    f"parameters {name!r} and {other!r} share memory, but are not one parameter",
                    allowed="parameters of their own, or tied ones: one parameter in both places",
                    fix="tie them as in model.b.weight = model.a.weight, or give one a copy",
                )


def _refuse_lazy(name: str, module: nn.Module) -> None:
    held = (*module._parameters.values(), *module._buffers.values())
    if any(tensor is not None and is_lazy(tensor) for tensor in held):
        raise SparsemendError(
            f"layer {name!r} is lazy and has no values yet", fix="run the model once first"
        )


def _is_quantised(module: nn.Module) -> bool:
    kind = type(module)
    among = kind.__module__.startswith(_QUANTISED) and kind.__name__ not in _FLOATING
    return among or hasattr(module, "_packed_params")


def _refuse_compiled(name: str, what: str, module: nn.Module) -> None:
    if isinstance(module, _loaded("torch._dynamo.eval_frame", "OptimizedModule")):
        inside = f"put its _orig_mod back into the place of {name!r}" if name else ""
        raise SparsemendError(
            f"{what} was compiled by torch.compile (OptimizedModule)",
            allowed="networks that are not compiled",
            fix=f"{inside or 'pass the network itself, model._orig_mod'}, and compile the result",
        )
    # Code that was compiled before the library adds its hooks may run without them.
    if getattr(module, "_compiled_call_impl", None) is not None:
        raise SparsemendError(
            f"{what} was compiled in place by {type(module).__name__}.compile()",
            allowed="networks that are not compiled",
            fix="compress the network before that, and compile the result",
        )


def _refuse_sharded(what: str, module: nn.Module) -> None:
    fix = "compress the whole network on one device, and shard the result"
    if isinstance(module, _loaded("torch.distributed.fsdp", "FullyShardedDataParallel")):
        raise SparsemendError(f"{what} is sharded (FullyShardedDataParallel)", fix=fix)
    for name, parameter in module.named_parameters(recurse=False):
        if isinstance(parameter, _loaded("torch.distributed.tensor", "DTensor")):
            raise SparsemendError(
                f"parameter {name!r} of {what} is sharded (DTensor)",
                allowed="plain tensors",
                fix=fix,
            )
        tensor: object = parameter
        packed = is_traceable_wrapper_subclass(tensor) or parameter.dtype not in _COMPUTING
        if packed and name == "weight" and is_layer(module):
            raise SparsemendError(
                f"{what} has a weight that is quantised, packed or not real",
                f"{type(parameter).__name__} of {parameter.dtype}",
                "plain tensors of floating-point numbers",
                "compress the network before that",
            )


def _loaded(module: str, name: str) -> Any:
    """A class of a module that nobody imports for its own sake; no class where it is not loaded."""
    return getattr(sys.modules.get(module), name, ())


def check_copy(model: nn.Module, batch: Batch) -> None:
    """Check that a copy of the network is a network of its own, where something may prevent that.

    A function that a module holds, be it in the place of its ``forward``, stays the same in every
    copy. Where it has taken hold of the original's layers, these answer, and the copy is pruned.
    Bound methods and partial functions are copied along, and do no harm.

    Parameters
    ----------
    model
        The network; unchanged. Where it holds such functions, or says itself how it is copied, a
        copy of it is made and run on at most two inputs.
    batch
        A batch of inputs.

    Raises
    ------
    SparsemendError
        Naming parameters of the network that its copy uses, and a module that holds a function.
    """
    suspects = [name or "the network" for name, m in model.named_modules() if _may_keep(m)]
    if not suspects:
        return
    twin = copied(model)
    check_apart(twin, model)
    check_alone(twin, [model], batch, f" ({suspects[0]})")


def check_alone(
    twin: nn.Module, models: Sequence[nn.Module], batch: Batch, suspect: str = ""
) -> None:
    """Check that a copy of a network runs without the network.

    Parameters
    ----------
    twin
        The copy, which is run on at most two inputs.
    models
        The network, and others that the copy must not use.
    batch
        A batch of inputs.
    suspect
        What is known of the cause.

    Raises
    ------
    SparsemendError
        Naming parameters of the network that the copy uses.
    """
    watch = _Watch(models)
    with evaluation_mode(twin), watch:
        try:
            call(twin, cut(batch, 0, _TRIED_INPUTS))
        except SparsemendError:  # as in discovery: it may need the whole batch
            call(twin, batch)
    if watch.used:
        raise SparsemendError(
            "a copy of the network uses the network's own parameters: a function that it holds "
            f"in the place of a forward or another method keeps to the original{suspect}",
            list(watch.used)[:5],
            "networks whose copies run by themselves",
            "undo the replacement, as in del module.forward, or make it a method of a class",
        )


class _Watch(TorchFunctionMode):
    """Notes which parameters of some networks are used, by whomever."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self._names = {id(p): name for model in models for name, p in model.named_parameters()}
        self.used: dict[str, None] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if id(leaf) in self._names:
                self.used[self._names[id(leaf)]] = None
        return func(*args, **(kwargs or {}))


def check_apart(network: nn.Module, original: nn.Module) -> None:
    """Check that a copy shares no parameter with the network that must stay as it is.

    Raises
    ------
    SparsemendError
        Naming a parameter that both have.
    """
    theirs = {p.untyped_storage().data_ptr() for p in original.parameters() if p.numel()}
    for name, parameter in network.named_parameters():
        address = parameter.untyped_storage().data_ptr()
        # Tensors without memory, as on the device "meta", have address 0.
        if parameter.numel() and address and address in theirs:
            raise SparsemendError(
                f"parameter {name!r} of a copy of the network is that of the network itself",
                allowed="networks that copy.deepcopy copies whole",
                fix="check what __deepcopy__ of its modules does",
            )


def _may_keep(module: nn.Module) -> bool:
    """Whether a copy of a module may hold on to the module itself or to its parts."""
    held = vars(module)
    if "forward" in held or hasattr(module, "__deepcopy__"):
        return True
    return any(
        isinstance(_content(cell), nn.Module)
        for value in held.values()
        if isinstance(value, types.FunctionType)
        for cell in value.__closure__ or ()
    )


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # empty as yet
        return None
