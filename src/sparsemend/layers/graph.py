"""The graph of one forward pass, found by following tensors.

Every function call on tensors becomes a node; operations that multiply with a parameter bear the
name of the layer, and normalisations become one node each. Nothing is read from names, so any
module that runs is seen as it runs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from sparsemend.execution.batches import Batch, call, evaluation_mode, plain
from sparsemend.layers.copies import Copies
from sparsemend.layers.kinds import plain_layers, read_call
from sparsemend.layers.opened import open_operation
from sparsemend.layers.operand import Operand
from sparsemend.layers.overloads import name_of, public, transformed, untransformed
from sparsemend.layers.sites import Uses

# Functions that hand every value on unchanged, channel by channel.
_TURNS = ("permute", "transpose", "movedim")
_RESHAPES = ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze")
_COPIES = ("contiguous", "clone", "detach", "to", "float", "half", "bfloat16")
_IDLE = ("dropout", "dropout1d", "dropout2d", "dropout3d", "identity")
_TRANSPARENT = frozenset(_TURNS + _RESHAPES + _COPIES + _IDLE)
_SUMS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})
_PRODUCTS = frozenset({"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"})
# Sizes that tell dimensions apart.
_SIZES = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class Node:
    """One operation of the forward pass.

    Attributes
    ----------
    index
        Position in execution order.
    kind
        ``"module"`` for a layer or a watched module, else ``"function"``.
    name
        Name of the layer, module path or function name; ``"input"`` and ``"output"`` for those
        of the network.
    inputs
        Indices of the nodes whose outputs it takes; inputs of the network have none.
    shape
        Shape of its (first) output tensor.
    factor
        What it multiplies its one input with: a parameter, or part of one, or a number; None for
        any other operation.
    order
        Where it turns its input's dimensions: which of them each of its own is; else empty.
    in_place
        Whether its output takes the place of its first input in memory.
    per_channel
        Whether it is a normalisation that computes output channel k from input channel k alone.
    """

    index: int
    kind: str
    name: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...] = ()
    factor: Operand | float | None = None
    order: tuple[int, ...] = ()
    in_place: bool = False
    per_channel: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether every value is handed on where it is, as by a dropout that is switched off."""
        return self.kind == "function" and self.name in _IDLE + _COPIES

    @property
    def is_sum(self) -> bool:
        """Whether its inputs are added up."""
        return self.kind == "function" and self.name in _SUMS

    @property
    def is_reshape(self) -> bool:
        """Whether values are handed on in their order in memory, in another shape."""
        return self.kind == "function" and self.name in _RESHAPES


@dataclass
class Graph:
    """Nodes in execution order; printed, a line for each: its inputs, what it is, its shape.

    Attributes
    ----------
    nodes
        In execution order.
    entries
        Module path → the node whose output is the module's first argument, and how many nodes
        there were before the module ran; of modules that run once.
    """

    nodes: list[Node] = field(default_factory=list)
    entries: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(
        self, kind: str, name: str, inputs: Iterable[int], output: object, **details: Any
    ) -> int:
        """Append a node; ``output`` is what the operation returned."""
        shapes = (tuple(leaf.shape) for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        node = Node(len(self.nodes), kind, name, tuple(inputs), next(shapes, ()), **details)
        self.nodes.append(node)
        return node.index

    def __str__(self) -> str:
        lines = []
        for node in self.nodes:
            inputs = ", ".join(f"%{source}" for source in node.inputs)
            shape = "×".join(map(str, node.shape))
            what = f"layer {node.name}" if node.kind == "module" else node.name
            lines.append(f"%{node.index} = {what}({inputs})" + (f"  [{shape}]" if shape else ""))
        return "\n".join(lines)

    def consumers(self) -> Mapping[int, list[Node]]:
        """Node index → the nodes that take its output."""
        consumers: dict[int, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for source in set(node.inputs):
                consumers[source].append(node)
        return consumers

    def sole_consumer(self, index: int, consumers: Mapping[int, list[Node]]) -> Node | None:
        """The one node that takes this output, seen through reshapes; None if there are more."""
        while True:
            following = consumers.get(index, [])
            if len(following) != 1:
                return None
            if following[0].kind == "module" or following[0].name not in _TRANSPARENT:
                return following[0]
            index = following[0].index


class _Recorder(TorchFunctionMode):
    """Adds a node per function call; silent while a watched module runs."""

    def __init__(self, uses: Uses) -> None:
        super().__init__()
        self.graph, self._uses = Graph(), uses
        self.calls: Counter[Operand] = Counter()
        self.inside = 0
        self.running: list[nn.Module] = []  # layers as PyTorch defines them, innermost last
        self._copies = Copies()
        self._source: Any = WeakTensorKeyDictionary()  # tensor → node that made it

    def sources(self, values: object) -> list[int]:
        tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
        return [self._source[t] for t in tensors if t in self._source]

    def made(self, values: object, node: int) -> None:
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor):
                self._source[leaf] = node

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        func, kwargs = public(func), kwargs or {}
        if self.inside:
            output = func(*args, **kwargs)
            self._uses.note(func, args, kwargs, output, active=True)
            return output
        if transformed():
            output = func(*args, **kwargs)
            given, named = tree_map(untransformed, (args, kwargs))
            self._uses.note(func, given, named, output, active=True, where=" (vmap)")
            return output
        originals = self._copies.originals(args, kwargs)
        read, instead = read_call(func, *originals), None
        if read is None or not self._is_weight(read.weight):
            instead = open_operation(func, args, kwargs, self._is_weight)
        if instead is not None:
            with self:
                return instead(*args, **kwargs)
        sources = self.sources((args, kwargs))  # before the call: it may work in place
        running = self.running[-1] if self.running else None
        site = self._uses.site(func, *originals, running)
        output = func(*args, **kwargs)
        self._copies.note(func, args, kwargs, output, self._uses.is_parameter)
        if site is not None:
            inputs = self.sources(args[:1] or kwargs.get("input")) or sources
            node = self.graph.add("module", site.name, inputs, output)
            self.calls[site.weight] += 1
            if sources:
                self.made(output, node)
            else:  # parameters alone: perhaps the weight of a layer is computed here
                self._uses.note(func, args, kwargs, output, active=False)
            return output
        self._uses.note(func, args, kwargs, output, active=bool(sources))
        if sources and any(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):
            details = {
                "factor": self._factor(name_of(func), args, kwargs),
                "order": _order(name_of(func), func, args, kwargs),
                "in_place": _in_place(name_of(func), kwargs),
            }
            label = _label(func, kwargs)
            self.made(output, self.graph.add("function", label, sources, output, **details))
        return output

    def _factor(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Operand | float | None:
        """The constant operand of a product."""
        if name not in _PRODUCTS or len(args) != 2 or kwargs:
            return None
        constants = [x for x in args if not (isinstance(x, Tensor) and x in self._source)]
        if len(constants) != 1:
            return None
        if isinstance(constants[0], Tensor):
            return self._uses.operand(self._copies.original(constants[0]))
        return float(constants[0]) if isinstance(constants[0], int | float) else None

    def _is_weight(self, tensor: Tensor) -> bool:
        """Whether a tensor is a view of a parameter, or a copy of one."""
        return self._uses.is_parameter(self._copies.original(tensor))


def _label(func: Callable[..., Any], kwargs: Mapping[str, Any]) -> str:
    """The name of a function; a sum with a factor is no plain sum."""
    name = name_of(func)
    return name if kwargs.get("alpha", 1) == 1 else f"{name}, alpha {kwargs['alpha']}"


def _order(
    name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[int, ...]:
    """Which dimension of the input each one of the output is, found out on sizes that differ."""
    if name not in _TURNS or not args or args[0].dim() > len(_SIZES):
        return ()
    turned = func(torch.empty(_SIZES[: args[0].dim()], device="meta"), *args[1:], **kwargs)
    return tuple(map(_SIZES.index, turned.shape))


def _in_place(name: str, kwargs: Mapping[str, Any]) -> bool:
    if name.endswith("__"):
        return name.startswith("__i")
    return name.endswith("_") or bool(kwargs.get("inplace"))


def trace(model: nn.Module, batch: Batch, watched: Mapping[nn.Module, str], uses: Uses) -> Graph:
    """Run the model once and return the graph of what happened.

    Parameters
    ----------
    model
        The network; unchanged, run in evaluation mode.
    batch
        One batch of inputs; a small one will do.
    watched
        Modules that become one node each → the names to give them.
    uses
        Notes what is done with the model's parameters.
    """
    recorder, known = _Recorder(uses), list(uses.sites)
    entered: list[list[int]] = []
    runs: Counter[str] = Counter()

    def enter(path: str, module: nn.Module, args: Any) -> None:  # noqa: ARG001
        runs[path] += 1
        sources = recorder.sources(args[:1])
        if len(sources) == 1 and isinstance(args[0], Tensor) and not recorder.inside:
            recorder.graph.entries[path] = (sources[0], len(recorder.graph.nodes))

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:  # noqa: ARG001
        entered.append(recorder.sources((args, kwargs)))
        recorder.inside += 1

    def after(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001
        recorder.inside -= 1
        sources = entered.pop()
        if not recorder.inside:
            per_channel = isinstance(module, _BatchNorm)
            node = recorder.graph.add(
                "module", watched[module], sources, output, per_channel=per_channel
            )
            recorder.made(output, node)

    def start(module: nn.Module, args: Any) -> None:  # noqa: ARG001
        recorder.running.append(module)

    def stop(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001
        recorder.running.pop()

    handles = []
    try:
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(enter, path)))
        for module in plain_layers(model).values():
            handles.append(module.register_forward_pre_hook(start))
            handles.append(module.register_forward_hook(stop))
        for module in watched:
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
        with evaluation_mode(model):
            for leaf in tree_leaves(plain(batch)):
                if isinstance(leaf, Tensor):
                    recorder.made(leaf, recorder.graph.add("function", "input", (), leaf))
            with recorder:
                output = call(model, batch)
            if returned := recorder.sources(output):
                recorder.graph.add("function", "output", returned, output)
    finally:
        for handle in handles:
            handle.remove()
    uses.count(known, recorder.calls)
    entries = recorder.graph.entries
    recorder.graph.entries = {path: entries[path] for path in entries if runs[path] == 1}
    return recorder.graph


def scan(model: nn.Module, batch: Batch, uses: Uses) -> None:
    """Run the model once and note how parameters are used, without a graph."""
    trace(model, batch, {}, uses)
