"""From tasks to steps: which tasks the kernels take, where values lie, and in which order."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
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
    Item,
    Linear,
    MaxPool,
    Operation,
    Reshape,
    Softmax,
    Torch,
)
from sparsemend.runtime.fusion import Task, fuse
from sparsemend.runtime.geometry import (
    Classes,
    Geometry,
    Needs,
    batches,
    blocks,
    compact,
    planes,
    rounded,
)
from sparsemend.runtime.steps import ACTIVATION_CODES, Kind, Step, View
from sparsemend.runtime.weights import Kept, Weights, kept, margin_runs, mask

Shape = tuple[int, ...]
LAYOUTS = ("planes", "blocks", "batches")
"""See ``geometry.py``."""
_FUSED = (None, "relu", "relu6")  # activations that a convolution has in its own step
_MOST_PHASES = 62
_REACH = 2**31 - 1
"""Bytes that a kept weight's offset can bridge."""
_FEWEST_ROWS = 4
"""Of a matrix, so that vectors run along them."""
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
    layout
        Of most values: one of ``LAYOUTS``.
    slots
        Value → its number among the tensors outside the arena.
    shapes
        Value → shape.
    """

    stages: list[Native | Task]
    layers: list[Layer]
    arena: int
    weights: Weights
    layout: str
    slots: Mapping[str, int]
    shapes: Mapping[str, Shape]

    @property
    def foreign(self) -> list[Task]:
        """Tasks that PyTorch runs."""
        return [stage for stage in self.stages if isinstance(stage, Task)]

    @property
    def foreign_names(self) -> tuple[str, ...]:
        """What these are, each once; views of a tensor cost nothing and are left out."""
        operations = [task.operation for task in self.foreign]
        names = [getattr(each, "target", each.label) for each in operations
                 if not isinstance(each, Reshape | Item)]  # fmt: skip
        return tuple(dict.fromkeys(names))


def lower(
    graph: Graph,
    shapes: Mapping[str, Shape],
    *,
    layout: str,
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
    layout
        One of ``LAYOUTS``. In layout blocks, what cannot be cut into blocks lies in planes.
    vector
        Floats of a vector.
    dense
        Values of layers to leave to PyTorch.
    """
    return _Lowering(graph, shapes, layout, vector, dense).program()


class _Lowering:
    def __init__(
        self,
        graph: Graph,
        shapes: Mapping[str, Shape],
        layout: str,
        vector: int,
        dense: frozenset[str],
    ) -> None:
        self.graph, self.shapes, self.layout, self.vector = graph, shapes, layout, vector
        self.lanes = lanes = vector if layout == "batches" else 1
        self.grid = _grid(vector)
        self.batch = next(iter(shapes[name][0] for name in graph.inputs if shapes[name]), 1)
        self.images = -(-self.batch // lanes)
        self.tasks = [_as_layer(task, shapes) for task in fuse(graph)]
        self._rows = self._find_rows()
        self.native = {
            task.name for task in self.tasks if task.name not in dense and self._is_native(task)
        }
        self.blocks = {
            task.name
            for task in self.tasks
            if layout == "blocks" and task.name in self.native and self._has_blocks(task)
        }
        self.weights = Weights()
        self.layers: list[Layer] = []
        self.stages: list[Native | Task] = []
        self.slots: dict[str, int] = {}
        self._where: dict[str, View] = {}  # values in the arena
        self._filled: dict[str, float] = {}  # what is beyond the image, in margins of blocks
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

    def _find_rows(self) -> frozenset[str]:
        """Layout planes: values [..., C] that lie as one image of one row, a position each.

        These are what linear layers take and give where there is more than one dimension in front
        of C, or images enough to fill a vector, and what goes through the same sums and functions.
        """
        if self.lanes > 1:
            return frozenset()
        classes, linear, other = Classes(self.shapes), set[str](), set[str]()
        for task in self.tasks:
            values = (*task.sources, task.name)
            if self._keeps_rows(task):
                for name in values[1:]:
                    classes.join(values[0], name)
                if isinstance(task.operation, Linear):
                    linear.add(task.name)
            elif not isinstance(task.operation, Torch | Item) and all(
                len(self.shapes[name]) in (2, 4) and self.shapes[name][0] == self.batch
                for name in values
            ):
                other.update(values)
        heads = {classes.find(name) for name in linear} - {classes.find(name) for name in other}
        return frozenset(n for n in self.shapes if classes.find(n) in heads and self._is_rows(n))

    def _keeps_rows(self, task: Task) -> bool:
        operation, last = task.operation, len(self.shapes[task.name]) - 1
        if isinstance(operation, Concatenate | Softmax):
            return operation.dimension == last
        return isinstance(operation, Linear | Activation | Add)

    def _is_rows(self, name: str) -> bool:
        shape = self.shapes[name]
        if len(shape) < 2 or 0 in shape:
            return False
        return len(shape) > 2 or shape[0] >= _FEWEST_ROWS

    def _image(self, name: str) -> tuple[int, int, int] | None:
        """A value as [C, H, W]; None if the kernels have no layout for it."""
        shape = self.shapes[name]
        if name in self._rows:
            return (shape[-1], 1, math.prod(shape[:-1]))
        if len(shape) not in (2, 4) or shape[0] != self.batch or 0 in shape:
            return None
        return (shape[1], *(shape[2:] or (1, 1)))  # type: ignore[return-value]

    def _is_native(self, task: Task) -> bool:
        if any(self._image(name) is None for name in (task.name, *task.sources)):
            return False
        if not {task.name, *task.sources}.isdisjoint(self.graph.constants):
            return False
        operation, shape = task.operation, self.shapes[task.name]
        in_rows = [name in self._rows for name in (task.name, *task.sources)]
        if any(in_rows):
            return all(in_rows) and self._keeps_rows(task)
        if isinstance(operation, Convolution):
            return self._convolves(operation, self._image(task.inputs[0]), shape)
        if isinstance(operation, Concatenate | Softmax):
            return operation.dimension == 1
        if isinstance(operation, Reshape):
            source = self.shapes[task.inputs[0]]
            return len(shape) == 2 or (shape[2:] == (1, 1) and source[2:] in ((), (1, 1)))
        if isinstance(operation, Linear) and len(shape) != 2:
            return False
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

    def _has_blocks(self, task: Task) -> bool:
        """Layout blocks: whether a task is computed block by block."""
        operation = task.operation
        before = self._block(task.inputs[0])
        if isinstance(operation, GlobalAverage):
            return before is not None
        if before is None or any(self._block(name) is None for name in (task.name, *task.sources)):
            return False
        after = self._block(task.name)
        assert after is not None
        if isinstance(operation, Convolution | MaxPool | AveragePool):
            sy, sx = operation.stride
            whole = (after[1] * sy, after[2] * sx) == before[1:]
            return whole and (not isinstance(operation, AveragePool) or self._divides(operation))
        return isinstance(operation, Activation | Add | Concatenate | Softmax)

    def _divides(self, operation: AveragePool) -> bool:
        """Whether every window has the same number of positions."""
        return not operation.ceil and (operation.count_padding or operation.padding == (0, 0))

    def _block(self, name: str) -> tuple[int, int, int] | None:
        """Channels, rows and columns of a block; None if the value cannot be cut into blocks."""
        image = self._image(name)
        if image is None or name in self._rows:
            return None
        channels, height, width = image
        if height % self.grid[0] or width % self.grid[1]:
            return None
        return channels, height // self.grid[0], width // self.grid[1]

    def _key(self, name: str, blocks: bool) -> str:
        """What a value is called in its layout."""
        root = self._root(name)
        return f"{root} in blocks" if blocks else root

    def _is_alias(self, task: Task) -> bool:
        """Whether a reshape leaves the values where they are."""
        return isinstance(task.operation, Reshape) and self._image(task.inputs[0])[1:] == (1, 1)  # type: ignore[index]

    # Layouts.

    def _lay_out(self) -> dict[str, Geometry]:
        """Where values would lie, by key; phases of a value are named by :func:`_phases`."""
        images: dict[str, tuple[int, int, int]] = {}
        in_blocks: dict[str, tuple[int, int, int]] = {}
        for name in self.shapes:
            image, block = self._image(name), self._block(name)
            if image is not None:
                images[name] = image
            if block is not None:
                in_blocks[self._key(name, True)] = block
        needs: dict[str, Needs] = defaultdict(Needs)
        joins: list[tuple[str, str]] = []
        for task in self.tasks:
            if task.name not in self.native:
                continue
            source = self._root(task.inputs[0])
            if task.name in self.blocks:
                if isinstance(task.operation, Convolution | MaxPool | AveragePool):
                    key = self._key(source, True)
                    result = in_blocks[self._key(task.name, True)]
                    self._need(needs[key], task.operation, in_blocks[key], result, planes=False)
            elif isinstance(task.operation, Convolution) and not self._is_point(task):
                read = source
                if self._splits(task.operation):
                    read = _phases(source, task.operation)
                    images.setdefault(read, _split(images[source], task.operation))
                self._need(needs[read], task.operation, images[read], images[task.name],
                           planes=self.lanes == 1)  # fmt: skip
                joins += [(read, task.name), *((n, task.name) for n in _some(task.added))]
            elif isinstance(task.operation, Activation | Add):
                joins += [(self._root(name), task.name) for name in task.sources]
        if self.lanes > 1:
            return {n: batches(images[n], needs[n], self.lanes) for n in images}
        found = self._planes(images, needs, [(self._root(a), b) for a, b in joins])
        return found | {n: blocks(in_blocks[n], needs[n], self.grid) for n in in_blocks}

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
            wish = needs[name].pitch(image[2])
            pitch[head] = max(pitch.get(head, 0), wish)
        return {
            name: compact(image[0])
            if image[1:] == (1, 1)
            else planes(image, needs[name], pitch[classes.find(name)], self.vector)
            for name, image in images.items()
        }

    def _need(
        self,
        needs: Needs,
        layer: Convolution | MaxPool | AveragePool,
        source: tuple[int, int, int],
        result: tuple[int, int, int],
        *,
        planes: bool,
    ) -> None:
        """What a convolution or pooling asks of the layout of its input."""
        rows, columns = _span(layer)
        sy, sx = layer.stride
        if planes:  # of the phases, if there is a stride
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
        """Value in the arena, in every layout → the last task that reads it."""
        last: dict[str, int] = {}
        for index, task in enumerate(self.tasks):
            for name in (*task.sources, task.name):
                last[self._key(name, False)] = last[self._key(name, True)] = index
                if isinstance(task.operation, Convolution) and self._splits(task.operation):
                    last[_phases(self._root(task.inputs[0]), task.operation)] = index
        return last

    def _place(self, key: str) -> View:
        """The view of a value, in a buffer of its own until its last use."""
        if key not in self._where:
            geometry = self._geometry[key]
            size = geometry.image * self._images(key)
            self._where[key] = geometry.view(self._buffers.take(key, size, geometry.margins))
        return self._where[key]

    def _images(self, name: str) -> int:
        """Images of a value, or groups of them."""
        return 1 if name in self._rows else self.images

    # Steps.

    def program(self) -> Program:
        outputs = self.graph.outputs
        returned = {self._key(name, blocks) for name in outputs for blocks in (False, True)}
        for index, task in enumerate(self.tasks):
            if task.name in self.native:
                self._enter(task.operation, task)
            else:
                for name in task.sources:
                    self._store(name)
                self.stages.append(task)
                self._outside.add(task.name)
            for name in [n for n, last in self._last.items() if last == index]:
                if name not in returned:
                    self._buffers.free(name)
        for name in outputs:
            self._store(name)
        arena = self._buffers.size + 4 * self.vector
        return Program(self.stages, self.layers, arena, self.weights, self.layout, self.slots,
                       self.shapes)  # fmt: skip

    def _native(self) -> Native:
        if not self.stages or not isinstance(self.stages[-1], Native):
            self.stages.append(Native())
        last = self.stages[-1]
        assert isinstance(last, Native)
        return last

    def _step(self, kind: Kind, source: View, target: View, name: str) -> Step:
        """A step that makes a value, or exchanges it."""
        step = Step(
            kind=kind, images=self._images(name), batch=self.batch, input=source, output=target,
            other=target, mask=-1, blocks=1, tile_rows=1, tile_columns=1,
            stride_y=1, stride_x=1, kernel_y=1, kernel_x=1, dilation_y=1, dilation_x=1,
        )  # fmt: skip
        self._native().steps.append(step)
        return step

    def _slot(self, name: str) -> int:
        return self.slots.setdefault(name, len(self.slots))

    def _load(self, name: str, *, blocks: bool = False) -> View:
        """A value in the arena and in this layout, wherever it was."""
        key, other = self._key(name, blocks), self._key(name, not blocks)
        if key in self._where:
            return self._where[key]
        view = self._place(key)
        if other in self._where:
            self._step(Kind.COPY, self._where[other], view, name)
        else:
            root = self._root(name)
            stage = self._native()
            self._exchange(Kind.LOAD, view, root)
            stage.loads.append(root)
        return view

    def _store(self, name: str) -> None:
        """Bring a value outside of the arena."""
        if name in self._outside:
            return
        key = self._key(name, False)
        view = self._where[key if key in self._where else self._key(name, True)]
        stage = self._native()
        self._exchange(Kind.STORE, view, name)
        stage.stores.append(name)
        self._outside.add(name)

    def _load_with_margins(self, name: str, fill: float) -> View:
        """A value in blocks, with this number beyond the image."""
        view, key = self._load(name, blocks=True), self._key(name, True)
        runs = margin_runs(self._geometry[key])
        if len(runs) and self._filled.get(key) != fill:
            step = self._step(Kind.MARGINS, view, view, name)
            step.runs, step.run_count = self.weights.add(runs, shared=True), len(runs)
            step.fill = fill
            self._filled[key] = fill
        return view

    def _exchange(self, kind: Kind, view: View, name: str) -> None:
        step = self._step(kind, view, view, name)
        step.external = self._slot(name)
        if name in self._rows:
            step.batch, step.outside_channel, step.outside_column = 1, 1, view.channels
        else:
            width = view.width * view.lanes_x
            plane = view.height * view.lanes_y * width
            step.outside_image, step.outside_channel = view.channels * plane, plane
            step.outside_row, step.outside_column = width, 1

    def _masked(self, step: Step, geometry: Geometry) -> None:
        """Layout planes: lanes outside of the image are to be written as zeros."""
        if geometry.lanes > 1:
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
        source = task.inputs[0]
        if task.name in self.blocks:
            view = self._load_with_margins(source, 0.0)
            geometry = self._geometry[self._key(source, True)]
            self._layer(task, view, kept(operation, geometry, phases=False, point=False))
            return
        point, source = self._is_point(task), self._root(source)
        view, geometry = self._load(source), self._geometry[source]
        phases = self._splits(operation) and not point
        if phases:
            split = _phases(source, operation)
            if split not in self._where:
                step = self._step(Kind.PHASES, view, self._place(split), split)
                step.stride_y, step.stride_x = operation.stride
                step.phases = self._needed_phases(source, operation)
            view, geometry = self._where[split], self._geometry[split]
        weights = kept(operation, geometry, phases=phases, point=point)
        self._layer(task, view, weights, point=point)

    @_enter.register
    def _(self, operation: Linear, task: Task) -> None:
        source = self._root(task.inputs[0])
        view, geometry = self._load(source), self._geometry[source]
        weights = kept(operation, geometry, phases=False, point=False)
        self._layer(task, view, weights, point=self._is_point(task))

    def _layer(self, task: Task, source: View, weights: Kept, *, point: bool = False) -> None:
        blocks = task.name in self.blocks
        added = [self._load(name, blocks=blocks) for name in _some(task.added)]
        key = self._key(task.name, blocks)
        target = self._place(key)
        kind = Kind.LINEAR if point else Kind.CONVOLUTION
        step = self._step(kind, source, target, task.name)
        step.added = len(added)
        for view in added:
            step.other = view
        if isinstance(task.operation, Convolution) and target.lanes > 1:
            step.stride_y, step.stride_x = task.operation.stride
        self._masked(step, self._geometry[key])
        self.layers.append(Layer(task, step, weights))
        if point or task.activation in _FUSED:
            step.activation = ACTIVATION_CODES[task.activation]
        else:
            self._elementwise(task.name, (target,), task.activation, blocks)

    @_enter.register
    def _(self, operation: Activation, task: Task) -> None:
        self._elements(task, operation.function)

    @_enter.register
    def _(self, operation: Add, task: Task) -> None:  # noqa: ARG002
        self._elements(task, task.activation)

    def _elements(self, task: Task, function: str | None) -> None:
        blocks = task.name in self.blocks
        views = [self._load(name, blocks=blocks) for name in task.inputs]
        self._elementwise(task.name, views, function, blocks)

    def _elementwise(
        self, name: str, sources: Sequence[View], function: str | None, blocks: bool
    ) -> None:
        key = self._key(name, blocks)
        geometry, target = self._geometry[key], self._place(key)
        step = self._step(Kind.ACTIVATION, sources[0], target, name)
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
        blocks = task.name in self.blocks
        place, first = self._place(self._key(task.name, blocks)), 0
        for name in task.inputs:
            source = self._load(name, blocks=blocks)
            part = View.from_buffer_copy(place)
            part.origin += first * place.channel
            part.channels = source.channels
            self._step(Kind.COPY, source, part, task.name)
            first += source.channels

    @_enter.register
    def _(self, operation: MaxPool, task: Task) -> None:
        step = self._window(Kind.MAX_POOL, operation, task)
        step.dilation_y, step.dilation_x = operation.dilation

    @_enter.register
    def _(self, operation: AveragePool, task: Task) -> None:
        step = self._window(Kind.AVERAGE_POOL, operation, task)
        step.count_padding = operation.count_padding

    def _plain_step(self, kind: Kind, task: Task) -> Step:
        blocks = task.name in self.blocks
        target = self._place(self._key(task.name, blocks and kind != Kind.GLOBAL_AVERAGE))
        return self._step(kind, self._load(task.inputs[0], blocks=blocks), target, task.name)

    def _window(self, kind: Kind, operation: MaxPool | AveragePool, task: Task) -> Step:
        if task.name in self.blocks:
            self._load_with_margins(task.inputs[0], -math.inf if kind == Kind.MAX_POOL else 0.0)
        step = self._plain_step(kind, task)
        step.kernel_y, step.kernel_x = operation.kernel
        step.stride_y, step.stride_x = operation.stride
        step.pad_y, step.pad_x = operation.padding
        return step

    @_enter.register
    def _(self, operation: GlobalAverage, task: Task) -> None:  # noqa: ARG002
        self._plain_step(Kind.GLOBAL_AVERAGE, task)

    @_enter.register
    def _(self, operation: Softmax, task: Task) -> None:  # noqa: ARG002
        self._plain_step(Kind.SOFTMAX, task)

    @_enter.register
    def _(self, operation: Reshape, task: Task) -> None:  # noqa: ARG002
        if task.name in self._alias:
            self._load(task.inputs[0])
            return
        blocks = self._key(task.inputs[0], True) in self._where
        source = self._load(task.inputs[0], blocks=blocks)
        target = View.from_buffer_copy(self._place(task.name))
        target.channels = source.channels
        target.height, target.width = source.height * source.lanes_y, source.width * source.lanes_x
        target.pitch = target.width
        target.channel = target.height * target.width * self.lanes
        self._step(Kind.COPY, source, target, task.name)

    def _needed_phases(self, source: str, layer: Convolution) -> int:
        """Bits of the rows of phases that any convolution of this stride reads."""
        sy = layer.stride[0]
        needed = 0
        for task in self.tasks:
            other = task.operation
            if (
                task.name in self.native - self.blocks
                and isinstance(other, Convolution)
                and other.stride == layer.stride
                and self._root(task.inputs[0]) == source
            ):
                for dy in _span(other)[0]:
                    needed |= 1 << dy % sy
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


def _span(layer: Convolution | MaxPool | AveragePool) -> tuple[list[int], list[int]]:
    """Rows and columns that the taps of a kernel read, relative to the output position's own."""
    kernel = layer.weight.shape[2:] if isinstance(layer, Convolution) else layer.kernel
    dilation = (1, 1) if isinstance(layer, AveragePool) else layer.dilation
    return tuple(  # type: ignore[return-value]
        [i * d - p for i in range(size)]
        for size, d, p in zip(kernel, dilation, layer.padding, strict=True)
    )


def _grid(vector: int) -> tuple[int, int]:
    """Rows and columns of blocks of an image, as square as they can be."""
    columns = 1 << (vector.bit_length() - 1) // 2
    return vector // columns, columns


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
