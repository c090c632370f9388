"""The structures of ``native/steps.h`` and the library that runs them."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from sparsemend.errors import SparsemendError
from sparsemend.runtime.build import LIBRARY

_VERSION = 1
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
        *_fields(ctypes.c_int32, "channels height width pitch"),
    )


class Step(ctypes.Structure):
    """``struct step``."""

    _fields_ = (
        *_fields(ctypes.c_int32, "kind lanes images batch activation added"),
        *_fields(View, "input output other"),
        *_fields(ctypes.c_int32, "tile_rows tile_columns blocks stride_y stride_x"),
        *_fields(ctypes.c_int32, "kernel_y kernel_x pad_y pad_x dilation_y dilation_x"),
        *_fields(ctypes.c_int32, "count_padding external"),
        *_fields(ctypes.c_int64, "phases nonzeros rows bias mask"),
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
        self._name = instructions.encode()
        self.lanes: int = handle.sparsemend_lanes(self._name)
        self.most: int = handle.sparsemend_most(self._name)

    def run(
        self,
        steps: ctypes.Array[Step],
        arena: int,
        weights: int,
        outside: ctypes.Array[ctypes.c_void_p],
        threads: int,
    ) -> None:
        """Run steps; ``arena`` and ``weights`` are addresses."""
        self._handle.sparsemend_run(self._name, steps, len(steps), arena, weights, outside, threads)

    def time(self, step: Step, arena: int, weights: int, repeats: int) -> float:
        """The shortest of some runs of one step in the arena, seconds."""
        outside = (ctypes.c_void_p * 1)()
        steps = (Step * 1)(step)
        return float(
            self._handle.sparsemend_time(self._name, steps, 1, arena, weights, outside, repeats)
        )


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
    pointer = ctypes.c_void_p
    arguments: list[Any] = [
        ctypes.c_char_p,
        pointer,
        ctypes.c_int64,
        pointer,
        pointer,
        pointer,
        ctypes.c_int,
    ]
    handle.sparsemend_run.argtypes = arguments
    handle.sparsemend_time.argtypes = arguments
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
