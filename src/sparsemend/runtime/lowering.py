"""From tasks to steps: which tasks the kernels take, where values lie, and in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatchmethod

from sparsemend.graphs import Graph
from sparsemend.graphs.operations import (
    Activation,
    Add,
    Affine,
    AveragePool,
    Concatenate,
    Convolution,
    GlobalAverage,
    Linear,
    MaxPool,
    Operation,
    Reshape,
    Softmax,
)
from sparsemend.runtime.fusion import Task, fuse
from sparsemend.runtime.geometry import Classes, Geometry, Needs, batches, compact, planes, rounded
from sparsemend.runtime.steps import ACTIVATION_CODES, Kind, Step, View
from sparsemend.runtime.weights import Kept, Weights, kept, mask

Shape = tuple[int, ...]
_FUSED = (None, "relu", "relu6")  # activations that a convolution has in its own step
_MOST_PHASES = 62
_REACH = 2**31 - 1
"""Bytes that a kept weight's offset can bridge."""
_MARGIN = 64
"""More rows and columns than padding adds to an image."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer among the steps: what a plan may still choose.

    Attributes
    ----------
    task
        The layer.
    step
        Its step; tiles and weights are filled in when the choice is made.
    kept
        Kept weights and where they read.
    """

    task: Task
    step: Step
    kept: Kept


@dataclass(frozen=True, eq=False)
class Native:
    """Steps of the kernels, one after the other.

    Attributes
    ----------
    steps
        In order.
    loads, stores
        Values that come from tensors outside the arena, and that go to such.
    """

    steps: list[Step] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Program:
    """All that is to be done, in order: steps of the kernels, and tasks that PyTorch runs.

    Attributes
    ----------
    stages
        In order.
    layers
        Layers among the steps.
    arena
        Floats that the values take.
    weights
        Masks; layers add theirs.
    lanes
        1 for layout planes, else the images side by side.
    slots
        Value → its number among the tensors outside the arena.
    shapes
        Value → shape.
    """

    stages: list[Native | Task]
    layers: list[Layer]
    arena: int
    weights: Weights
    lanes: int
    slots: Mapping[str, int]
    shapes: Mapping[str, Shape]

    @property
    def foreign(self) -> list[Task]:
        """Tasks that PyTorch runs."""
        return [stage for stage in self.stages if isinstance(stage, Task)]


def lower(
    graph: Graph,
    shapes: Mapping[str, Shape],
    *,
    lanes: int,
    vector: int,
    dense: frozenset[str] = frozenset(),
) -> Program:
    """Lower a graph.

    Parameters
    ----------
    graph
        The network.
    shapes
        Of all values; the first dimension is the batch.
    lanes
        1 for layout planes, ``vector`` for layout batches.
    vector
        Floats of a vector.
    dense
        Values of layers to leave to PyTorch.
    """
    return _Lowering(graph, shapes, lanes, vector, dense).program()


class _Lowering:
    def __init__(
        self,
        graph: Graph,
        shapes: Mapping[str, Shape],
        lanes: int,
        vector: int,
        dense: frozenset[str],
    ) -> None:
        self.graph, self.shapes, self.lanes, self.vector = graph, shapes, lanes, vector
        self.batch = next(iter(shapes[name][0] for name in graph.inputs if shapes[name]), 1)
        self.images = -(-self.batch // lanes)
        self.tasks = [_as_layer(task, shapes) for task in fuse(graph)]
        self.native = {
            task.name for task in self.tasks if task.name not in dense and self._is_native(task)
        }
        self.weights = Weights()
        self.layers: list[Layer] = []
        self.stages: list[Native | Task] = []
        self.slots: dict[str, int] = {}
        self._where: dict[str, View] = {}  # values in the arena
        self._outside = set(graph.inputs) | set(graph.constants)
        self._masks: dict[tuple[int, int, int], int] = {}
        self._alias: dict[str, str] = {}  # reshaped value → the value that it is
        for task in self.tasks:
            if task.name in self.native and self._is_alias(task):
                source = task.inputs[0]
                self._alias[task.name] = self._alias.get(source, source)
        self._geometry = self._lay_out()
        self._buffers = _Buffers()
        self._last = self._last_uses()

    # What the kernels take.

    def _image(self, name: str) -> tuple[int, int, int] | None:
        """A value as [C, H, W]; None if the kernels have no layout for it."""
        shape = self.shapes[name]
        if len(shape) not in (2, 4) or shape[0] != self.batch or 0 in shape:
            return None
        return (shape[1], *(shape[2:] or (1, 1)))  # type: ignore[return-value]

    def _is_native(self, task: Task) -> bool:
        if any(self._image(name) is None for name in (task.name, *task.sources)):
            return False
        if not {task.name, *task.sources}.isdisjoint(self.graph.constants):
            return False
        operation, shape = task.operation, self.shapes[task.name]
        if isinstance(operation, Convolution):
            return self._convolves(operation, self._image(task.inputs[0]), shape)
        if isinstance(operation, Concatenate | Softmax):
            return operation.dimension == 1
        if isinstance(operation, Reshape):
            source = self.shapes[task.inputs[0]]
            return len(shape) == 2 or (shape[2:] == (1, 1) and source[2:] in ((), (1, 1)))
        return isinstance(
            operation, Linear | Activation | Add | MaxPool | AveragePool | GlobalAverage
        )

    def _convolves(
        self, layer: Convolution, source: tuple[int, int, int] | None, result: Shape
    ) -> bool:
        """Whether the kernels take a convolution."""
        assert source is not None
        channels, height, width = source
        if self.lanes == 1 and (height, width) == (1, 1) and result[2:] != (1, 1):
            return False  # padding around one position, which has no margins
        if 4 * self.lanes * channels * (height + _MARGIN) * (width + _MARGIN) > _REACH:
            return False
        return layer.stride[0] * layer.stride[1] <= _MOST_PHASES

    def _is_alias(self, task: Task) -> bool:
        """Whether a reshape leaves the values where they are."""
        return isinstance(task.operation, Reshape) and self._image(task.inputs[0])[1:] == (1, 1)  # type: ignore[index]

    # Layouts.

    def _lay_out(self) -> dict[str, Geometry]:
        """Where values would lie, by name; phases of a value are named by :func:`_phases`."""
        images: dict[str, tuple[int, int, int]] = {}
        for name in self.shapes:
            image = self._image(name)
            if image is not None:
                images[name] = image
        needs: dict[str, Needs] = {}
        joins: list[tuple[str, str]] = []
        for task in self.tasks:
            if task.name not in self.native:
                continue
            if isinstance(task.operation, Convolution) and not self._is_point(task):
                source = self._root(task.inputs[0])
                read = source
                if self._splits(task.operation):
                    read = _phases(source, task.operation)
                    images.setdefault(read, _split(images[source], task.operation))
                self._need(needs.setdefault(read, Needs()), task.operation, images[read],
                           images[task.name])  # fmt: skip
                joins += [(read, task.name), *((n, task.name) for n in _some(task.added))]
            elif isinstance(task.operation, Activation | Add):
                joins += [(self._root(name), task.name) for name in task.sources]
        if self.lanes > 1:
            none = Needs()
            return {n: batches(images[n], needs.get(n, none), self.lanes) for n in images}
        return self._planes(images, needs, [(self._root(a), b) for a, b in joins])

    def _planes(
        self,
        images: Mapping[str, tuple[int, int, int]],
        needs: Mapping[str, Needs],
        joins: Iterable[tuple[str, str]],
    ) -> dict[str, Geometry]:
        classes = Classes(images)
        for first, second in joins:
            classes.join(first, second)
        pitch: dict[str, int] = {}
        for name, image in images.items():
            head = classes.find(name)
            wish = needs.get(name, Needs()).pitch(image[2])
            pitch[head] = max(pitch.get(head, 0), wish)
        return {
            name: compact(image[0])
            if image[1:] == (1, 1)
            else planes(image, needs.get(name, Needs()), pitch[classes.find(name)], self.vector)
            for name, image in images.items()
        }

    def _need(
        self,
        needs: Needs,
        layer: Convolution,
        source: tuple[int, int, int],
        result: tuple[int, int, int],
    ) -> None:
        """What a convolution asks of the layout of its input."""
        rows, columns = _span(layer)
        sy, sx = layer.stride
        if self.lanes == 1:  # of the phases, if there is a stride
            rows, columns = [d // sy for d in rows], [d // sx for d in columns]
            sy = sx = 1
        left, top = max(0, -min(columns)), max(0, -min(rows))
        width = (result[2] - 1) * sx + 1 + max(0, *columns, 0)
        below = max(0, (result[1] - 1) * sy + 1 + max(rows) - source[1])
        needs.read(width, left, (top, left), (below, max(0, *columns, 0)))

    def _splits(self, layer: Convolution) -> bool:
        return self.lanes == 1 and layer.stride != (1, 1)

    def _is_point(self, task: Task) -> bool:
        """Layout planes: whether the output has one position, so that vectors would be wasted."""
        return self.lanes == 1 and self._image(task.name)[1:] == (1, 1)  # type: ignore[index]

    def _root(self, name: str) -> str:
        return self._alias.get(name, name)

    # Buffers.

    def _last_uses(self) -> dict[str, int]:
        """Value in the arena → the last task that reads it."""
        last: dict[str, int] = {}
        for index, task in enumerate(self.tasks):
            for name in (*task.sources, task.name):
                root = self._root(name)
                last[root] = index
                if isinstance(task.operation, Convolution) and self._splits(task.operation):
                    last[_phases(self._root(task.inputs[0]), task.operation)] = index
        return last

    def _place(self, name: str) -> View:
        """The view of a value, in a buffer of its own until its last use."""
        if name not in self._where:
            geometry = self._geometry[name]
            size = geometry.image * self.images
            self._where[name] = geometry.view(self._buffers.take(name, size, geometry.margins))
        return self._where[name]

    # Steps.

    def program(self) -> Program:
        for index, task in enumerate(self.tasks):
            if task.name in self.native:
                self._enter(task.operation, task)
            else:
                for name in task.sources:
                    self._store(name)
                self.stages.append(task)
                self._outside.add(task.name)
            for name in [n for n, last in self._last.items() if last == index]:
                if name not in map(self._root, self.graph.outputs):
                    self._buffers.free(name)
        for name in self.graph.outputs:
            self._store(name)
        arena = self._buffers.size + 4 * self.vector
        return Program(self.stages, self.layers, arena, self.weights, self.lanes, self.slots,
                       self.shapes)  # fmt: skip

    def _native(self) -> Native:
        if not self.stages or not isinstance(self.stages[-1], Native):
            self.stages.append(Native())
        last = self.stages[-1]
        assert isinstance(last, Native)
        return last

    def _step(self, kind: Kind, source: View, target: View) -> Step:
        step = Step(
            kind=kind, lanes=self.lanes, images=self.images, batch=self.batch, input=source,
            output=target, other=target, mask=-1, blocks=1, tile_rows=1, tile_columns=1,
            stride_y=1, stride_x=1, kernel_y=1, kernel_x=1, dilation_y=1, dilation_x=1,
        )  # fmt: skip
        self._native().steps.append(step)
        return step

    def _slot(self, name: str) -> int:
        return self.slots.setdefault(name, len(self.slots))

    def _load(self, name: str) -> View:
        """A value in the arena, wherever it was."""
        root = self._root(name)
        if root in self._where:
            return self._where[root]
        view = self._place(root)
        stage = self._native()
        step = self._step(Kind.LOAD, view, view)
        step.external = self._slot(root)
        stage.loads.append(root)
        return view

    def _store(self, name: str) -> None:
        """Bring a value outside of the arena."""
        if name in self._outside:
            return
        view = self._where[self._root(name)]
        stage = self._native()
        step = self._step(Kind.STORE, view, view)
        step.external = self._slot(name)
        stage.stores.append(name)
        self._outside.add(name)

    def _masked(self, step: Step, geometry: Geometry) -> None:
        """Layout planes: lanes outside of the image are to be written as zeros."""
        if self.lanes > 1:
            return
        key = (geometry.height, geometry.width, geometry.pitch)
        if key not in self._masks:
            lanes = mask(geometry, self.vector)
            self._masks[key] = -1 if lanes is None else self.weights.add(lanes)
        step.mask = self._masks[key]

    @singledispatchmethod
    def _enter(self, operation: Operation, task: Task) -> None:
        raise NotImplementedError(operation, task)

    @_enter.register
    def _(self, operation: Convolution, task: Task) -> None:
        point = self._is_point(task)
        source = self._root(task.inputs[0])
        view, geometry = self._load(source), self._geometry[source]
        phases = self._splits(operation) and not point
        if phases:
            split = _phases(source, operation)
            if split not in self._where:
                step = self._step(Kind.PHASES, view, self._place(split))
                step.stride_y, step.stride_x = operation.stride
                step.phases = self._needed_phases(source, operation)
            view, geometry = self._where[split], self._geometry[split]
        self._layer(task, view, kept(operation, geometry, phases=phases, point=point), point=point)

    @_enter.register
    def _(self, operation: Linear, task: Task) -> None:
        source = self._root(task.inputs[0])
        view, geometry = self._load(source), self._geometry[source]
        self._layer(
            task,
            view,
            kept(operation, geometry, phases=False, point=False),
            point=self.lanes == 1,
        )

    def _layer(self, task: Task, source: View, weights: Kept, *, point: bool) -> None:
        added = [self._load(name) for name in _some(task.added)]
        target = self._place(task.name)
        step = self._step(Kind.LINEAR if point else Kind.CONVOLUTION, source, target)
        step.added = len(added)
        for view in added:
            step.other = view
        if isinstance(task.operation, Convolution) and self.lanes > 1:
            step.stride_y, step.stride_x = task.operation.stride
        self._masked(step, self._geometry[task.name])
        self.layers.append(Layer(task, step, weights))
        if point or task.activation in _FUSED:
            step.activation = ACTIVATION_CODES[task.activation]
        else:
            self._elementwise(task.name, (target,), task.activation)

    @_enter.register
    def _(self, operation: Activation, task: Task) -> None:
        self._elementwise(task.name, [self._load(task.inputs[0])], operation.function)

    @_enter.register
    def _(self, operation: Add, task: Task) -> None:  # noqa: ARG002
        self._elementwise(task.name, [self._load(name) for name in task.inputs], task.activation)

    def _elementwise(self, name: str, sources: Sequence[View], function: str | None) -> None:
        geometry, target = self._geometry[name], self._place(name)
        step = self._step(Kind.ACTIVATION, sources[0], target)
        step.activation = ACTIVATION_CODES[function]
        if len(sources) > 1:
            step.added, step.other = 1, sources[1]
        if geometry.is_compact:
            for view in (step.input, step.output, step.other):
                view.channels, view.width, view.pitch = 1, geometry.channels, geometry.channels
        else:
            self._masked(step, geometry)

    @_enter.register
    def _(self, operation: Concatenate, task: Task) -> None:  # noqa: ARG002
        place, first = self._place(task.name), 0
        for name in task.inputs:
            source = self._load(name)
            part = View.from_buffer_copy(place)
            part.origin += first * place.channel
            part.channels = source.channels
            self._step(Kind.COPY, source, part)
            first += source.channels

    @_enter.register
    def _(self, operation: MaxPool, task: Task) -> None:
        step = self._window(Kind.MAX_POOL, operation, task)
        step.dilation_y, step.dilation_x = operation.dilation

    @_enter.register
    def _(self, operation: AveragePool, task: Task) -> None:
        step = self._window(Kind.AVERAGE_POOL, operation, task)
        step.count_padding = operation.count_padding

    def _window(self, kind: Kind, operation: MaxPool | AveragePool, task: Task) -> Step:
        step = self._step(kind, self._load(task.inputs[0]), self._place(task.name))
        step.kernel_y, step.kernel_x = operation.kernel
        step.stride_y, step.stride_x = operation.stride
        step.pad_y, step.pad_x = operation.padding
        return step

    @_enter.register
    def _(self, operation: GlobalAverage, task: Task) -> None:  # noqa: ARG002
        self._step(Kind.GLOBAL_AVERAGE, self._load(task.inputs[0]), self._place(task.name))

    @_enter.register
    def _(self, operation: Softmax, task: Task) -> None:  # noqa: ARG002
        self._step(Kind.SOFTMAX, self._load(task.inputs[0]), self._place(task.name))

    @_enter.register
    def _(self, operation: Reshape, task: Task) -> None:  # noqa: ARG002
        source = self._load(task.inputs[0])
        if task.name in self._alias:
            return
        target = View.from_buffer_copy(self._place(task.name))
        target.channels, target.height, target.width = (
            source.channels,
            source.height,
            source.width,
        )
        target.pitch = source.width
        target.channel = source.height * source.width * self.lanes
        self._step(Kind.COPY, source, target)

    def _needed_phases(self, source: str, layer: Convolution) -> int:
        """Bits of the phases that any convolution of this stride reads."""
        sy, sx = layer.stride
        needed = 0
        for task in self.tasks:
            other = task.operation
            if (
                task.name in self.native
                and isinstance(other, Convolution)
                and other.stride == layer.stride
                and self._root(task.inputs[0]) == source
            ):
                rows, columns = _span(other)
                for dy in rows:
                    for dx in columns:
                        needed |= 1 << (dy % sy * sx + dx % sx)
        return needed


class _Buffers:
    """Buffers that are used again once their value is dead, by values with the same zeros."""

    def __init__(self) -> None:
        self.size = 0
        self._free: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        self._taken: dict[str, tuple[tuple[int, ...], int, int]] = {}

    def take(self, name: str, size: int, margins: tuple[int, ...]) -> int:
        """The origin of a buffer of at least ``size`` floats."""
        fitting = [b for b in self._free.get(margins, []) if b[0] >= size]
        if fitting:
            capacity, origin = min(fitting)
            self._free[margins].remove((capacity, origin))
        else:
            capacity, origin = rounded(size, 16), self.size
            self.size += capacity
        self._taken[name] = (margins, capacity, origin)
        return origin

    def free(self, name: str) -> None:
        if name in self._taken:
            margins, capacity, origin = self._taken.pop(name)
            self._free.setdefault(margins, []).append((capacity, origin))


def _some(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def _phases(source: str, layer: Convolution) -> str:
    """Name of a value's phases."""
    return f"{source} by {layer.stride[0]}x{layer.stride[1]}"


def _split(image: tuple[int, int, int], layer: Convolution) -> tuple[int, int, int]:
    """Shape of the phases of a value."""
    sy, sx = layer.stride
    return image[0] * sy * sx, -(-image[1] // sy), -(-image[2] // sx)


def _span(layer: Convolution) -> tuple[list[int], list[int]]:
    """Rows and columns that the taps of a kernel read, relative to the output position's own."""
    return tuple(  # type: ignore[return-value]
        [i * d - p for i in range(size)]
        for size, d, p in zip(layer.weight.shape[2:], layer.dilation, layer.padding, strict=True)
    )


def _as_layer(task: Task, shapes: Mapping[str, Shape]) -> Task:
    """An affine map of images is a depthwise convolution of one position."""
    operation = task.operation
    if not isinstance(operation, Affine) or len(shapes[task.name]) != 4:
        return task
    channels = len(operation.scale)
    layer = Convolution(
        operation.scale.float().view(channels, 1, 1, 1),
        operation.shift.float(),
        (1, 1),
        (0, 0),
        (1, 1),
        channels,
    )
    return dataclasses.replace(task, operation=layer)
