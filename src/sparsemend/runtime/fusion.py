"""From nodes to tasks: a layer together with the sum and the activation behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsemend.graphs import Graph, Node
from sparsemend.graphs.operations import (
    ACTIVATIONS,
    Activation,
    Add,
    Affine,
    Convolution,
    Linear,
    Operation,
)


@dataclass(frozen=True, eq=False)
class Task:
    """What is computed in one go.

    Attributes
    ----------
    name
        Name of the value that comes out.
    layer
        Name of the node of the operation.
    operation, inputs
        As in the node.
    added
        A value to add to the result, if any.
    activation
        Elementwise function behind it, if any.
    """

    name: str
    layer: str
    operation: Operation
    inputs: tuple[str, ...]
    added: str | None = None
    activation: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """All values that it takes."""
        return self.inputs if self.added is None else (*self.inputs, self.added)

    def run(self, *sources: Any) -> Any:
        """The task in plain PyTorch."""
        result = self.operation.run(*sources[: len(self.inputs)])
        if self.added is not None:
            result = result + sources[-1]
        return result if self.activation is None else ACTIVATIONS[self.activation](result)


def fuse(graph: Graph) -> list[Task]:
    """The tasks of a graph, in an order in which they can run."""
    consumers = graph.consumers()
    nodes = {node.name: node for node in graph}
    order = {node.name: index for index, node in enumerate(graph)}

    def following(node: Node, kind: type[Operation]) -> Node | None:
        found = graph.sole_consumer(node.name, consumers)
        return found if found is not None and isinstance(found.operation, kind) else None

    # Of two layers that are summed the later one takes the other's result.
    summed: dict[str, Node] = {}
    for node in graph:
        if isinstance(node.operation, Add) and node.inputs[0] != node.inputs[1]:
            layers = [
                nodes[name]
                for name in node.inputs
                if name in nodes
                and isinstance(nodes[name].operation, Convolution | Linear | Affine)
                and following(nodes[name], Add) is node
            ]
            if layers:
                summed[node.name] = max(layers, key=lambda layer: order[layer.name])
    waiting = {layer.name for layer in summed.values()}
    tasks: list[Task] = []
    done: set[str] = set()
    for node in graph:
        if node.name in waiting or node.name in done:
            continue
        layer, added = node, None
        if node.name in summed:
            layer = summed[node.name]
            first, second = node.inputs
            added = second if first == layer.name else first
        last, function = node, None
        if isinstance(node.operation, Convolution | Linear | Affine | Add):
            behind = following(node, Activation)
            if behind is not None:
                assert isinstance(behind.operation, Activation)
                last, function = behind, behind.operation.function
                done.add(behind.name)
        tasks.append(Task(last.name, layer.name, layer.operation, layer.inputs, added, function))
    return tasks
