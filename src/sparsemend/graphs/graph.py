"""An execution graph: values by name, and the nodes that compute them in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from sparsemend.errors import SparsemendError
from sparsemend.graphs.operations import Operation, Torch


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Attributes
    ----------
    name
        Of the node and of its result. A node with a weight is named like its layer.
    operation
        What is computed.
    inputs
        Names of other nodes, of the graph's inputs, or of its constants.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        label = self.operation.label
        if isinstance(self.operation, Torch):
            label = self.operation.target
        return f"{self.name} = {label}({', '.join(self.inputs)})"


@dataclass(frozen=True, eq=False)
class Graph:
    """What a network computes.

    Attributes
    ----------
    inputs
        Name → shape of each input, as it was traced; the first dimension is the batch.
    nodes
        In an order in which they can run; names are unique.
    outputs
        Names of the values that are returned.
    constants
        Tensors that nodes take as inputs, by name.
    types
        Name → type of the inputs that are no floating-point numbers.
    """

    inputs: Mapping[str, tuple[int, ...]]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    types: Mapping[str, torch.dtype] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __str__(self) -> str:
        heads = [f"{name} = input{list(shape)}" for name, shape in self.inputs.items()]
        return "\n".join([*heads, *map(str, self.nodes), f"return {', '.join(self.outputs)}"])

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs node by node in plain PyTorch: the reference of all runtimes."""
        values = self.values(inputs)
        return tuple(values[name] for name in self.outputs)

    def values(self, inputs: Sequence[Tensor]) -> dict[str, Any]:
        """Every value by name."""
        if len(inputs) != len(self.inputs):
            raise SparsemendError("number of inputs", len(inputs), str(len(self.inputs)))
        values: dict[str, Any] = {
            **self.constants,
            **dict(zip(self.inputs, inputs, strict=True)),
        }
        with torch.no_grad():
            for node in self.nodes:
                values[node.name] = node.operation.run(*(values[name] for name in node.inputs))
        return values

    def blank_inputs(self) -> list[Tensor]:
        """Zeros of the shapes and types of the inputs that were traced."""
        return [
            torch.zeros(shape, dtype=self.types.get(name, torch.float32))
            for name, shape in self.inputs.items()
        ]

    def traced_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every value for inputs like those that were traced."""
        return self.shapes(self.blank_inputs())

    def shapes(self, inputs: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
        """Shape of every value for inputs like these; nothing is computed.

        Raises
        ------
        SparsemendError
            If the network cannot run on such inputs.
        """
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = [mode.from_tensor(each) for each in inputs]
            try:
                values = self.values(fakes)
            except SparsemendError:
                raise
            except Exception as error:
                shapes = ", ".join(str(tuple(each.shape)) for each in inputs)
                traced = ", ".join(map(str, self.inputs.values()))
                raise SparsemendError(
                    f"the network cannot run on inputs of this shape ({error})",
                    shapes,
                    f"shapes like {traced}, as it was traced",
                ) from error
        return {name: _shape(value) for name, value in values.items()}

    def consumers(self) -> dict[str, list[Node]]:
        """Name of a value → the nodes that take it, once for each time."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in node.inputs:
                found[name].append(node)
        return found

    def sole_consumer(self, name: str, consumers: Mapping[str, list[Node]]) -> Node | None:
        """The only node that takes a value; None if there are others or it is an output."""
        takers = consumers.get(name, [])
        return takers[0] if len(takers) == 1 and name not in self.outputs else None

    def with_nodes(self, nodes: Sequence[Node]) -> Graph:
        """The graph with other nodes, less the constants and nodes that nothing needs."""
        needed, kept = set(self.outputs), []
        for node in reversed(nodes):
            if node.name in needed:
                needed.update(node.inputs)
                kept.append(node)
        constants = {name: value for name, value in self.constants.items() if name in needed}
        return replace(self, nodes=tuple(reversed(kept)), constants=constants)


def _shape(value: Any) -> tuple[int, ...]:
    """Shape of a tensor; of an operator with several results that of the first."""
    while not isinstance(value, Tensor):
        value = value[0]
    return tuple(int(size) for size in value.shape)


def detached(value: Any) -> Any:
    """Tensors without their history, in memory of their own."""
    return tree_map_only(Tensor, lambda each: each.detach().clone().contiguous(), value)
