"""Plans by trying: each layer is timed with several tiles, and dense; the fastest is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from sparsemend.execution.stopwatch import best_time
from sparsemend.graphs import Graph
from sparsemend.graphs.operations import Convolution
from sparsemend.runtime.lowering import Layer, Program, Shape, lower
from sparsemend.runtime.steps import Kind, Library, View
from sparsemend.runtime.weights import Weights

_CACHE = 28 * 1024
"""Bytes of input that are used again and again, from the first-level cache."""
_FEWEST = 8
"""Kept weights of an output channel that make a block of input channels worth its while."""
_QUICK, _FINAL, _REPEATS = 3, 3, 10
"""Runs of every choice; how many choices, the best of these, are run again, and how often."""
_DENSE_FROM = 0.12
"""Density below which the dense routine is not even tried."""
_CLEARLY = 0.95
"""PyTorch takes a layer only if that is faster by this: what lies between is copied."""


@dataclass(frozen=True)
class Choice:
    """What was chosen for a layer.

    Attributes
    ----------
    layer
        Name.
    density
        Kept fraction of the weights.
    routine
        ``"sparse"``, or ``"dense"`` where PyTorch runs the layer.
    tile
        Rows and columns of vectors that are computed at once.
    blocks
        Of input channels.
    seconds
        Measured.
    """

    layer: str
    density: float
    routine: str
    tile: tuple[int, int]
    blocks: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Plan:
    """A program whose choices are made, with its memory.

    Attributes
    ----------
    program
        Its steps are final.
    choices
        One for every layer.
    arena
        Zeros where no value lies.
    weights
        Kept weights and masks.
    foreign
        What PyTorch runs for want of a kernel, by name.
    """

    program: Program
    choices: tuple[Choice, ...]
    arena: NDArray[np.float32]
    weights: NDArray[np.uint8]
    foreign: tuple[str, ...] = ()


def plan(
    graph: Graph,
    shapes: Mapping[str, Shape],
    library: Library,
    layout: str,
    *,
    with_dense: bool = True,
) -> Plan:
    """Lower a graph and choose for every layer, by trying on this machine.

    Parameters
    ----------
    graph
        The network.
    shapes
        Of all values.
    library
        The kernels.
    layout
        ``"planes"``, ``"blocks"`` or ``"batches"``.
    with_dense
        Whether PyTorch may run layers.
    """
    dense: dict[str, Choice] = {}
    trial = lower(graph, shapes, layout=layout, vector=library.lanes)
    chosen = _try_all(trial, library)
    for layer in trial.layers:
        density = chosen[layer.task.name].density
        if with_dense and density > _DENSE_FROM:
            seconds = _dense_seconds(layer, shapes)
            if seconds < _CLEARLY * chosen[layer.task.name].seconds:
                name = layer.task.layer
                dense[layer.task.name] = Choice(name, density, "dense", (0, 0), 0, seconds)
    program = lower(graph, shapes, layout=layout, vector=library.lanes, dense=frozenset(dense))
    planned = _planned(program, [layer.task.name for layer in trial.layers], chosen | dense)
    return replace(planned, foreign=trial.foreign_names)


def plan_untried(graph: Graph, shapes: Mapping[str, Shape], *, vector: int, most: int) -> Plan:
    """A plan in layout planes that is the same everywhere: the largest tiles, no blocks.

    Parameters
    ----------
    graph, shapes
        The network and the shapes of its values.
    vector
        Floats of a vector.
    most
        Vectors that registers can hold as sums.
    """
    program = lower(graph, shapes, layout="planes", vector=vector)
    choices = {}
    for layer in program.layers:
        tile = (1, 1)
        if layer.step.kind == Kind.CONVOLUTION:
            *_, tile = _tiles(layer.step.output, vector, most)
        choices[layer.task.name] = Choice(layer.task.layer, _density(layer), "sparse", tile, 1, 0.0)
    return _planned(program, list(choices), choices)


def _planned(program: Program, names: list[str], choices: Mapping[str, Choice]) -> Plan:
    for layer in program.layers:
        _apply(layer, choices[layer.task.name], program.weights)
    made = tuple(choices[name] for name in names)
    return Plan(program, made, _arena(program), program.weights.array())


def _density(layer: Layer) -> float:
    return len(layer.kept.row) / max(layer.task.operation.tensors()["weight"].numel(), 1)


def _try_all(program: Program, library: Library) -> dict[str, Choice]:
    """The best choice for every layer, by the name of its value."""
    arena = _arena(program)
    arena[:] = 0.5  # as fast as any other numbers, unless they are denormal
    found: dict[str, Choice] = {}
    for layer in program.layers:
        name, density = layer.task.layer, _density(layer)

        def timed(choice: Choice, repeats: int, layer: Layer = layer) -> Choice:
            seconds = _seconds(layer, choice, library, arena, repeats)
            return replace(choice, seconds=min(seconds, choice.seconds))

        choices = [
            timed(Choice(name, density, "sparse", (rows, columns), blocks, math.inf), _QUICK)
            for rows, columns, blocks in _candidates(layer, library)
        ]
        choices.sort(key=_by_time)
        found[layer.task.name] = min((timed(each, _REPEATS) for each in choices[:_FINAL]),
                                     key=_by_time)  # fmt: skip
    return found


def _by_time(choice: Choice) -> float:
    return choice.seconds


def _seconds(
    layer: Layer, choice: Choice, library: Library, arena: NDArray[np.float32], repeats: int
) -> float:
    """The shortest time of a layer's step with a choice."""
    weights = Weights()
    step = type(layer.step).from_buffer_copy(layer.step)
    if step.mask >= 0:
        lanes = np.full(step.output.height * step.output.pitch + library.lanes, -1, "<i4")
        step.mask = weights.add(lanes)
    layer.kept.store(step, choice.blocks, weights)
    step.tile_rows, step.tile_columns = choice.tile
    return library.time(step, arena, weights.array(), repeats)


def _apply(layer: Layer, choice: Choice, weights: Weights) -> None:
    layer.step.tile_rows, layer.step.tile_columns = choice.tile
    layer.kept.store(layer.step, choice.blocks, weights)


def _candidates(layer: Layer, library: Library) -> Iterator[tuple[int, int, int]]:
    """Tiles and blocks of input channels to try: (rows, columns, blocks)."""
    step = layer.step
    if step.kind == Kind.LINEAR:
        yield 1, 1, 1
        return
    rows_kept = len(layer.kept.row) / max(len(layer.kept.bias), 1)
    most = int(rows_kept / _FEWEST)
    for rows, columns in _tiles(step.output, library.lanes, library.most):
        yield rows, columns, 1
        wanted = -(-layer.kept.channels * _read(layer, rows, columns, library.lanes) // _CACHE)
        for blocks in sorted({min(wanted, most), min(2 * wanted, most)}):
            if blocks > 1:
                yield rows, columns, blocks


def _read(layer: Layer, rows: int, columns: int, vector: int) -> int:
    """Bytes of an input channel that a tile reads."""
    step, operation = layer.step, layer.task.operation
    ky, kx = operation.weight.shape[2:] if isinstance(operation, Convolution) else (1, 1)
    if step.output.lanes == 1:
        return int(4 * (columns * vector + (ky - 1) * step.input.pitch))
    height, width = (rows - 1) * step.stride_y + ky, (columns - 1) * step.stride_x + kx
    return int(4 * vector * height * width)


def _tiles(view: View, vector: int, most: int) -> Iterator[tuple[int, int]]:
    """Sizes of tiles that fill the registers and divide the image well."""
    height, width, pitch = int(view.height), int(view.width), int(view.pitch)
    widest = 16 if most >= 28 else 12
    if view.lanes == 1:
        vectors = -(-height * pitch // vector)
        for size in sorted({4, 6, 8, widest}):
            tiles = -(-vectors // size)
            yield 1, -(-vectors // tiles)
        return
    shapes = [(r, c) for r in range(1, 5) for c in range(1, widest + 1)
              if (r == 1 or c >= 2) and r * c <= most]  # fmt: skip

    def waste(shape: tuple[int, int]) -> float:
        """Sums for every position: more where a tile ends beyond the image, or is small."""
        r, c = min(shape[0], height), min(shape[1], width)
        tiles = -(-height // r) * -(-width // c)
        return tiles * (r * c + 1.5)

    fitting = sorted({(min(r, height), min(c, width)) for r, c in shapes}, key=waste)
    yield from fitting[:4]


def _dense_seconds(layer: Layer, shapes: Mapping[str, Shape]) -> float:
    """Time of a layer in PyTorch, with what it takes to copy its input and output."""
    inputs = [torch.full(shapes[name], 0.5) for name in layer.task.sources]

    def run() -> None:
        with torch.no_grad():
            result = layer.task.run(*inputs)
            for value in (*inputs, result):
                value.clone()

    return best_time(run, _REPEATS)


def _arena(program: Program) -> NDArray[np.float32]:
    """Zeros, aligned to cache lines."""
    room = np.zeros(program.arena + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    return room[start : start + program.arena]
