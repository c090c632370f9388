"""The structures of ``native/steps.h`` and the library that runs them."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsemend.errors import SparsemendError
from sparsemend.runtime.build import LIBRARY

_VERSION = 2
INSTRUCTIONS = "SPARSEMEND_INSTRUCTIONS"
"""Environment variable: the instruction set to use instead of the best."""


class Kind(IntEnum):
    """What a step does: ``enum step_kind``."""

    CONVOLUTION = 0
    LINEAR = 1
    PHASES = 2
    ACTIVATION = 3
    COPY = 4
    MAX_POOL = 5
    AVERAGE_POOL = 6
    GLOBAL_AVERAGE = 7
    SOFTMAX = 8
    LOAD = 9
    STORE = 10
    MARGINS = 11


ACTIVATION_CODES: Mapping[str | None, int] = {
    None: 0,
    "relu": 1,
    "relu6": 2,
    "hardswish": 3,
    "hardsigmoid": 4,
    "silu": 5,
    "gelu": 6,
    "gelu_tanh": 7,
    "sigmoid": 8,
    "tanh": 9,
}
"""``enum activation``; the first three cost nothing behind a sum."""


def _fields(kind: type[Any], names: str) -> list[tuple[str, type[Any]]]:
    return [(name, kind) for name in names.split()]


class View(ctypes.Structure):
    """``struct view``: where a tensor lies in the arena."""

    _fields_ = (
        *_fields(ctypes.c_int64, "origin image channel"),
        *_fields(ctypes.c_int32, "channels height width pitch lanes lanes_y lanes_x"),
    )


class Step(ctypes.Structure):
    """``struct step``."""

    _fields_ = (
        *_fields(ctypes.c_int32, "kind images batch activation added"),
        *_fields(View, "input output other"),
        *_fields(ctypes.c_int32, "tile_rows tile_columns blocks stride_y stride_x"),
        *_fields(ctypes.c_int32, "kernel_y kernel_x pad_y pad_x dilation_y dilation_x"),
        *_fields(ctypes.c_int32, "run_count count_padding"),
        ("fill", ctypes.c_float),
        ("external", ctypes.c_int32),
        *_fields(ctypes.c_int64, "outside_image outside_channel outside_row outside_column"),
        *_fields(ctypes.c_int64, "phases nonzeros rows bias mask runs"),
    )


class _Program(ctypes.Structure):
    """``struct program``."""

    _fields_ = (
        ("set", ctypes.c_void_p),
        ("steps", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        *_fields(ctypes.c_void_p, "arena weights outside"),
        ("threads", ctypes.c_int32),
    )


class Library:
    """The compiled kernels.

    Attributes
    ----------
    instructions
        Instruction set in use.
    lanes
        Floats of a vector.
    most
        Vectors that registers can hold as sums.
    """

    def __init__(self, handle: Any, instructions: str) -> None:
        self._handle = handle
        self.instructions = instructions
        name = instructions.encode()
        self._set: int = handle.sparsemend_find(name)
        self.lanes: int = handle.sparsemend_lanes(name)
        self.most: int = handle.sparsemend_most(name)

    def time(
        self, step: Step, arena: NDArray[np.float32], weights: NDArray[np.uint8], repeats: int
    ) -> float:
        """The shortest of some runs of one step in the arena, seconds."""
        runner = self.runner([step], arena, weights, (ctypes.c_void_p * 1)())
        return float(self._handle.sparsemend_time(runner.address, repeats))

    def runner(
        self,
        steps: Sequence[Step],
        arena: NDArray[np.float32],
        weights: NDArray[np.uint8],
        outside: ctypes.Array[ctypes.c_void_p],
        threads: int = 1,
    ) -> Runner:
        """What runs steps on the tensors whose addresses are then in ``outside``."""
        array = (Step * len(steps))(*steps)
        program = _Program(
            self._set, ctypes.addressof(array), len(steps), arena.ctypes.data, weights.ctypes.data,
            ctypes.addressof(outside), threads,
        )  # fmt: skip
        return Runner(self._handle.sparsemend_run, program, (array, arena, weights, outside))


class Runner:
    """Steps with their memory, ready to be run by one call."""

    def __init__(self, run: Callable[[int], None], program: _Program, memory: tuple[Any, ...]):
        self._run = run
        self._held = (program, memory)
        self.address = ctypes.addressof(program)

    def __call__(self) -> None:
        self._run(self.address)


@functools.cache
def _handle() -> Any:
    if not LIBRARY.is_file():
        return None
    try:
        handle = ctypes.CDLL(str(LIBRARY))
        fits = (handle.sparsemend_version(), handle.sparsemend_step_size()) == (
            _VERSION,
            ctypes.sizeof(Step),
        )
    except (OSError, AttributeError):  # of another machine
        return None
    if not fits:
        return None
    handle.sparsemend_instructions.restype = ctypes.c_char_p
    handle.sparsemend_time.restype = ctypes.c_double
    handle.sparsemend_find.restype = ctypes.c_void_p
    handle.sparsemend_run.argtypes = [ctypes.c_void_p]
    handle.sparsemend_run.restype = None
    handle.sparsemend_time.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return handle


def instruction_sets() -> list[str]:
    """Instruction sets that the library can use on this machine, best first; none without it."""
    handle = _handle()
    found: list[str] = []
    while handle is not None:
        name = handle.sparsemend_instructions(len(found))
        if name is None:
            break
        found.append(name.decode())
    return found


def library(instructions: str | None = None) -> Library | None:
    """The kernels for an instruction set, the best by default; None where they are not built.

    Raises
    ------
    SparsemendError
        If the machine has not that instruction set.
    """
    there = instruction_sets()
    if not there:
        return None
    chosen = instructions or os.environ.get(INSTRUCTIONS) or there[0]
    if chosen not in there:
        raise SparsemendError("no such instruction set here", chosen, ", ".join(there))
    return Library(_handle(), chosen)
