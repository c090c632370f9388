"""Networks that are ready to run: :func:`prepare` and what it returns."""

from __future__ import annotations

import ctypes
import dataclasses
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from sparsemend.boundary import HasModel, network_of, public
from sparsemend.checks import check_int
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.execution.batches import Batch, arguments
from sparsemend.execution.stopwatch import best_time
from sparsemend.graphs import Graph, Traced, shrink, trace
from sparsemend.runtime.fusion import Task, fuse
from sparsemend.runtime.lowering import LAYOUTS, Native
from sparsemend.runtime.planning import Choice, Plan, plan
from sparsemend.runtime.steps import Library, library

_NO_LIBRARY = (
    "the kernels are not built, so that PyTorch runs everything: install a C compiler and run "
    "python -m sparsemend.runtime.build"
)
_REPEATS = 5


_PLAIN = (tree_flatten(((torch.zeros(()),), {}))[1], tree_flatten(torch.zeros(()))[1])


class Prepared:
    """A network that runs on inputs of the shapes it was prepared for.

    Call it with the network's own arguments; tensors come out as the network gives them, on the
    CPU and without gradients. It keeps buffers, so that calls from several threads wait for each
    other.

    Attributes
    ----------
    graph
        What is computed.
    layout
        ``"planes"``, ``"blocks"``, ``"batches"``, or ``"pytorch"`` where nothing was faster or the
        kernels are not built.
    instructions
        Instruction set in use; empty without the kernels.
    choices
        What was chosen for every layer.
    foreign
        What PyTorch runs for want of a kernel, by name.
    """

    def __init__(self, traced: Traced, shapes: Mapping[str, tuple[int, ...]], run: _Run) -> None:
        self.graph: Graph = traced.graph
        self.layout: str = run.layout
        self.instructions: str = run.instructions
        self.choices: tuple[Choice, ...] = run.choices
        self.foreign: tuple[str, ...] = run.foreign
        self._traced = traced
        self._run = run
        self._inputs = {name: shapes[name] for name in traced.graph.inputs}
        # One tensor in and one out need no trees, which take longer than a small network.
        self._is_plain = (traced.inputs, traced.outputs) == _PLAIN
        self._first = next(iter(self._inputs.items()))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._is_plain and len(args) == 1 and not kwargs:
            return self._run((self._checked(args[0], self._first),))[0]
        leaves, spec = tree_flatten((args, kwargs))
        if spec != self._traced.inputs:
            raise SparsemendError(
                "the arguments are not like those of the example", _as_text(spec),
                _as_text(self._traced.inputs),
            )  # fmt: skip
        outputs = self._run([self._checked(*pair) for pair in zip(leaves, self._inputs.items(),
                                                                  strict=True)])  # fmt: skip
        return tree_unflatten(outputs, self._traced.outputs)

    def _checked(self, value: Any, expected: tuple[str, tuple[int, ...]]) -> Tensor:
        name, shape = expected
        if not isinstance(value, Tensor) or value.shape != shape:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise SparsemendError(
                f"{name} has another shape", given, str(shape),
                "prepare the network for an example of that shape",
            )  # fmt: skip
        if value.dtype is torch.float32 and value.is_cpu and not value.requires_grad:
            return value if value.is_contiguous() else value.contiguous()
        plain = value.detach().cpu()
        return (plain.float() if plain.is_floating_point() else plain).contiguous()

    @property
    def memory(self) -> int:
        """Bytes of the kernels' buffers and kept weights."""
        return self._run.memory

    def __str__(self) -> str:
        shapes = ", ".join(str(list(shape)) for shape in self._inputs.values())
        how = self.layout if not self.instructions else f"{self.layout}, {self.instructions}"
        lines = [f"prepared for {shapes} ({how}, {self.memory / 2**20:.1f} MiB)"]
        for choice in self.choices:
            tile = f"{choice.tile[0]}x{choice.tile[1]}" if choice.routine == "sparse" else ""
            lines.append(
                f"{choice.layer:<32} {100 * choice.density:6.2f} %  {choice.routine:<7}"
                f"{tile:>6} {choice.blocks:>3} {1e6 * choice.seconds:9.1f} us"
            )
        return "\n".join(lines)


def _as_text(spec: Any) -> str:
    """Arguments as they are written, of tensors."""
    args, named = tree_unflatten(["tensor"] * spec.num_leaves, spec)
    written = [*map(str, args), *(f"{name}={value}" for name, value in named.items())]
    return f"({', '.join(written)})"


@public
def prepare(
    model: nn.Module | HasModel,
    example: Batch,
    *,
    threads: int = 1,
    instructions: str | None = None,
) -> Prepared:
    """Make a sparse network ready to run fast on the CPU.

    Every layer is tried with several tilings of the sparse kernels, and with PyTorch's dense
    routine; the fastest is kept. What is fast does not depend on the values of the input, but on
    its shape and on the machine.

    Parameters
    ----------
    model
        A float32 network with zeros, or a result of ``compress``; it need not be sparse. Not
        changed.
    example
        A batch of the shape to run on: a tensor, a tuple of arguments or a dictionary of keywords.
    threads
        Threads of the kernels; small networks are fastest on one. What PyTorch runs uses
        PyTorch's own number.
    instructions
        Instruction set, the best that the machine has by default.

    Returns
    -------
    Prepared
        Takes and returns tensors as the network does, equal to 1e-4.

    Raises
    ------
    SparsemendError
        If the network is not float32, cannot run on the example, or does what depends on the
        values of its inputs.

    Warns
    -----
    SparsemendWarning
        Once: what PyTorch runs for want of a kernel, by name, and if the kernels are not built.

    Examples
    --------
    >>> fast = sm.runtime.prepare(model, batches[0])
    >>> torch.allclose(fast(batches[0]), model(batches[0]), atol=1e-4)
    True
    """
    return prepare_traced(
        trace(network_of(model), example), example, threads=threads, instructions=instructions
    )


def prepare_traced(
    traced: Traced, example: Batch, *, threads: int = 1, instructions: str | None = None
) -> Prepared:
    """:func:`prepare` for a graph; the example may be of another batch than it was traced on."""
    threads = check_int("threads", threads)
    leaves, _ = tree_flatten(arguments(example))
    inputs = [leaf.detach().cpu().contiguous() for leaf in leaves]
    traced = dataclasses.replace(traced, graph=shrink(traced.graph))
    shapes = traced.graph.shapes(inputs)
    kernels = library(instructions)
    if kernels is None:
        warnings.warn(SparsemendWarning(_NO_LIBRARY), stacklevel=4)
        return Prepared(traced, shapes, _Run(traced.graph))
    run = _fastest(traced.graph, shapes, inputs, kernels, threads)
    if run.foreign:
        warnings.warn(SparsemendWarning(f"PyTorch runs {', '.join(run.foreign)}"), stacklevel=4)
    return Prepared(traced, shapes, run)


def _fastest(
    graph: Graph,
    shapes: Mapping[str, tuple[int, ...]],
    inputs: list[Tensor],
    kernels: Library,
    threads: int,
) -> _Run:
    """Of the layouts, and of PyTorch alone, what runs the whole network fastest."""
    batch = inputs[0].shape[0] if inputs[0].dim() else 1
    # Lanes beyond the batch are computed for nothing.
    layouts = [each for each in LAYOUTS if each != "batches" or 2 * batch >= kernels.lanes]
    runs: list[_Run] = []
    for layout in layouts:
        runs.append(_Kernels(graph, plan(graph, shapes, kernels, layout), kernels, threads))
    runs.append(_Run(graph, runs[0].foreign))
    return min(runs, key=lambda run: best_time(lambda: run(inputs), _REPEATS))


class _Run:
    """A graph in plain PyTorch, task by task."""

    layout = "pytorch"
    instructions = ""
    choices: tuple[Choice, ...] = ()
    memory = 0

    def __init__(self, graph: Graph, foreign: tuple[str, ...] = ()) -> None:
        self._graph = graph
        self._tasks: Sequence[Task] = fuse(graph)
        self.foreign = foreign

    def __call__(self, inputs: Sequence[Tensor]) -> list[Any]:
        values = {**self._graph.constants, **dict(zip(self._graph.inputs, inputs, strict=True))}
        with torch.no_grad():
            for task in self._tasks:
                values[task.name] = task.run(*(values[name] for name in task.sources))
        return [values[name] for name in self._graph.outputs]


class _Kernels(_Run):
    """A plan: the kernels' steps, and PyTorch for what they do not take."""

    def __init__(self, graph: Graph, plan_: Plan, kernels: Library, threads: int) -> None:
        self._graph, self._plan, self._kernels, self._threads = graph, plan_, kernels, threads
        program = plan_.program
        self.layout = program.layout
        self.instructions = kernels.instructions
        self.choices = plan_.choices
        self.foreign = plan_.foreign
        self.memory = plan_.arena.nbytes + plan_.weights.nbytes
        self._outside = (ctypes.c_void_p * max(len(program.slots), 1))()
        self._lock = threading.Lock()
        self._inputs, self._outputs = tuple(graph.inputs), graph.outputs
        self._stages: list[Callable[[dict[str, Any]], None]] = [
            self._steps(stage) if isinstance(stage, Native) else _Foreign(stage)
            for stage in program.stages
        ]

    def _steps(self, native: Native) -> Callable[[dict[str, Any]], None]:
        slots, shapes = self._plan.program.slots, self._plan.program.shapes
        loads = [(name, slots[name]) for name in native.loads]
        stores = [(name, slots[name], shapes[name]) for name in native.stores]
        outside, plan_, empty = self._outside, self._plan, torch.empty
        runner = self._kernels.runner(
            native.steps, plan_.arena, plan_.weights, outside, self._threads
        )

        def run(values: dict[str, Any]) -> None:
            for name, slot in loads:
                tensor = values[name]
                if not tensor.is_contiguous():
                    tensor = values[name] = tensor.contiguous()
                outside[slot] = tensor.data_ptr()
            for name, slot, shape in stores:
                tensor = values[name] = empty(*shape)
                outside[slot] = tensor.data_ptr()
            runner()

        return run

    def __call__(self, inputs: Sequence[Tensor]) -> list[Any]:
        values: dict[str, Any] = dict(zip(self._inputs, inputs, strict=True))
        values |= self._graph.constants
        with self._lock:
            for stage in self._stages:
                stage(values)
        return [values[name] for name in self._outputs]


class _Foreign:
    """A task that PyTorch runs."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, values: dict[str, Any]) -> None:
        task = self._task
        with torch.no_grad():
            values[task.name] = task.run(*(values[name] for name in task.sources))
