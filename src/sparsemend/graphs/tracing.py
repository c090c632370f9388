"""From a PyTorch network to a graph: it runs once, and what ATen is asked for is written down.

What is recorded lies below modules and functions, so that it does not matter how the network is
written. What is computed from parameters alone is a constant, such as a normalised weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map

from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch, arguments, call, evaluation_mode
from sparsemend.execution.copies import copied
from sparsemend.execution.offload import at_home
from sparsemend.graphs.folding import fold
from sparsemend.graphs.graph import Graph, Node, detached
from sparsemend.graphs.operations import Item, Linear, Reshape, Slot, Torch
from sparsemend.graphs.reading import Call, Read, Value, batch_free, read


@dataclass(frozen=True)
class Traced:
    """A network's graph, and in which containers its inputs and outputs come.

    Attributes
    ----------
    graph
        BatchNorms are folded.
    inputs, outputs
        Trees that PyTorch's pytree makes of arguments (args, kwargs) and of the output.
    """

    graph: Graph
    inputs: TreeSpec
    outputs: TreeSpec


def trace(model: nn.Module, example: Batch) -> Traced:
    """Run the network once on an example and return the graph of what was computed.

    Parameters
    ----------
    model
        A float32 network; unchanged, run in evaluation mode on a copy on the CPU.
    example
        A batch that the network accepts: a tensor, a tuple of arguments or a dictionary of
        keywords.

    Raises
    ------
    SparsemendError
        If the network cannot run on the example, what it does depends on the values of its
        inputs, or it is not float32.
    """
    for name, parameter in model.named_parameters():
        if is_lazy(parameter) or parameter.is_meta:
            raise SparsemendError(
                f"parameter {name!r} has no values",
                fix="build the network on the CPU, and run it once if it has lazy layers",
            )
        if parameter.dtype != torch.float32:
            raise SparsemendError(
                f"parameter {name!r} is not float32",
                str(parameter.dtype),
                fix="pass model.float()",
            )
    model = copied(model).cpu()
    example = tree_map(lambda x: x.cpu() if isinstance(x, Tensor) else x, example)
    leaves, in_spec = tree_flatten(arguments(example))
    wrong = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
    if wrong or not leaves:
        raise SparsemendError("the example has inputs that are no tensors", wrong, "tensors")
    recorder = _Recorder(model, leaves)
    with at_home(), evaluation_mode(model), _without_fused_attention(), recorder:
        output = call(model, example, copies=False)
    outputs, out_spec = tree_flatten(output)
    graph = recorder.graph(leaves, outputs)
    return Traced(fold(graph), in_spec, out_spec)


@contextmanager
def _without_fused_attention() -> Iterator[None]:
    """PyTorch then calls the parts of its transformer layers, and not one operator for all."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@dataclass
class _Names:
    """Names that are unique: a second one gets a number."""

    taken: set[str] = field(default_factory=set)

    def unique(self, wish: str) -> str:
        name, number = wish, 1
        while name in self.taken:
            number += 1
            name = f"{wish}#{number}"
        self.taken.add(name)
        return name


class _Recorder(TorchDispatchMode):
    """Writes a node for every operator whose inputs depend on the network's."""

    def __init__(self, model: nn.Module, inputs: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = _Names()
        self._value: dict[int, str] = {}  # id of a tensor → name of its value
        self._alive: list[Any] = []  # ids and addresses stay unique while their owners live
        self._views: dict[int, set[int]] = {}  # address of a storage → tensors in it
        self._overwritten: set[int] = set()  # through another view: they have no value any more
        self._parameters = {
            _address(tensor): name.rpartition(".")[0]
            for name, tensor in (*model.named_buffers(), *model.named_parameters())
        }
        self.nodes: list[Node] = []
        self.constants: dict[str, Tensor] = {}
        self._constant: dict[int, str] = {}
        self._same_rows: dict[str, Value] = {}  # matrix → the value whose rows it has
        self._inputs = [self._names.unique("input" if not i else f"input{i}")
                        for i in range(len(inputs))]  # fmt: skip
        for name, tensor in zip(self._inputs, inputs, strict=True):
            self._name(tensor, name)

    def graph(self, inputs: list[Tensor], outputs: list[Any]) -> Graph:
        names = []
        for each in outputs:
            if not isinstance(each, Tensor) or id(each) not in self._value:
                what = "is no tensor" if not isinstance(each, Tensor) else "is constant"
                raise SparsemendError(f"an output of the network {what}", fix="return tensors")
            names.append(self._value[id(each)])
        shapes = {n: tuple(x.shape) for n, x in zip(self._inputs, inputs, strict=True)}
        types = {
            n: x.dtype
            for n, x in zip(self._inputs, inputs, strict=True)
            if not x.is_floating_point()
        }
        graph = Graph(shapes, tuple(self.nodes), tuple(names), self.constants, types)
        return graph.with_nodes(self.nodes)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(id(leaf) in self._value for leaf in given):
            result = func(*args, **kwargs)
            self._alive.append(result)
            return result
        if torch.Tag.data_dependent_output in func.tags:
            raise SparsemendError(
                f"what the network computes depends on the values of its inputs ({func})",
                fix="only networks that do the same for every input become a graph",
            )
        values = tree_map(lambda x: self._known(x) if isinstance(x, Tensor) else x, (args, kwargs))
        target = self._functional(func, args[0]) if func._schema.is_mutable else str(func)
        result = func(*args, **kwargs)
        self._record(Call(target, values[0], values[1]), result)
        return result

    def _known(self, tensor: Tensor) -> Value:
        """The value of a tensor; one that no operator made is a constant."""
        shape = tuple(tensor.shape)
        name = self._value.get(id(tensor))
        if name is None:
            return Value(shape, None, tensor, self._parameters.get(_address(tensor), ""))
        if id(tensor) in self._overwritten:
            raise _in_place("it is then read through another")
        return Value(shape, name)

    def _record(self, call_: Call, result: Any) -> None:
        found = read(call_, result)
        if isinstance(found, Read) and isinstance(found.operation, Reshape):
            before = self._same_rows.get(found.inputs[0].name or "")
            if before is not None and before.shape == tuple(result.shape):
                found = before
        if isinstance(found, Value):  # the same values again
            assert found.name is not None
            self._name(result, found.name)
            return
        if found is None:
            found = self._any(call_)
        rows = None
        if isinstance(found.operation, Linear):
            rows = self._same_rows.get(found.inputs[0].name or "")
            found = found if rows is None else replace(found, inputs=(rows,))
        inputs = tuple(map(self._input, found.inputs))
        name = self._names.unique(found.name or call_.target.split(".")[1].strip("_"))
        self.nodes.append(Node(name, found.operation, inputs))
        if rows is not None:
            self._name(result, self._matrix(Value((*rows.shape[:-1], result.shape[-1]), name)))
        elif isinstance(result, Tensor):
            if isinstance(found.operation, Reshape):
                self._remember_rows(name, found.inputs[0], tuple(result.shape))
            self._name(result, name)
        elif isinstance(found.operation, Torch):
            for index, each in enumerate(result):
                if isinstance(each, Tensor):
                    item = self._names.unique(f"{name}.{index}")
                    self.nodes.append(Node(item, Item(index), (name,)))
                    self._name(each, item)
        else:  # of a pooling with indices or a BatchNorm the rest is not read
            self._name(result[0], name)
            self._alive.append(result)

    # A linear layer on [N, T, C] is recorded as a reshape to rows, a product, and a reshape back.
    # Here it is the layer on [N, T, C]; reshapes that nothing reads then go.

    def _remember_rows(self, name: str, source: Value, shape: tuple[int, ...]) -> None:
        """Note a reshape that makes rows [N * T, C] of [N, T, C]."""
        before = source.shape
        if len(shape) != 2 or len(before) < 3 or before[-1] != shape[1]:
            return
        # [N, 1, 1, C] is rather an image that is flattened.
        if before[0] != shape[0] or (len(before) == 3 and shape[1] > 1):
            self._same_rows[name] = source

    def _matrix(self, value: Value) -> str:
        """The name of [N, T, C] as rows [N * T, C]."""
        assert value.name is not None
        name = self._names.unique(f"{value.name} as rows")
        matrix = (math.prod(value.shape[:-1]), value.shape[-1])
        self.nodes.append(Node(name, Reshape(batch_free(value.shape, matrix)), (value.name,)))
        self._same_rows[name] = value
        return name

    def _any(self, call_: Call) -> Read:
        """The call of an operator that graphs have no operation for."""
        inputs: list[Value] = []

        def template(x: Any) -> Any:
            if isinstance(x, Value):
                inputs.append(x)
                return Slot(len(inputs) - 1)
            return tuple(map(template, x)) if isinstance(x, list | tuple) else x

        arguments_ = tuple(map(template, call_.args))
        keywords = tuple((name, template(value)) for name, value in call_.kwargs.items())
        return Read(Torch(call_.target, arguments_, keywords), tuple(inputs))

    def _input(self, value: Value) -> str:
        if value.name is not None:
            return value.name
        tensor = value.constant
        if id(tensor) not in self._constant:
            name = self._names.unique(f"{value.layer or 'constant'}:{len(self.constants)}")
            self._constant[id(tensor)] = name
            self.constants[name] = detached(tensor)
            self._alive.append(tensor)
        return self._constant[id(tensor)]

    def _name(self, tensor: Tensor, name: str) -> None:
        self._value[id(tensor)] = name
        self._alive.append(tensor)
        self._views.setdefault(_address(tensor), set()).add(id(tensor))

    def _functional(self, func: Any, changed: Tensor) -> str:
        """The operator that returns what this one writes into its first argument."""
        target = str(func)
        name = target.split(".")[1]
        if not name.endswith("_"):
            raise _in_place(str(func))
        if id(changed) not in self._value and changed._is_view():
            raise _in_place("it is a part of a constant")
        self._overwritten |= self._views.get(_address(changed), set()) - {id(changed)}
        return target.replace(f".{name}.", f".{name[:-1]}.")


def _in_place(what: str) -> SparsemendError:
    return SparsemendError(
        f"the network writes into a tensor that has several views ({what})",
        fix="write it without operations in place there",
    )


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
