"""A folder of C: a network without Python, PyTorch, or any library but libc and libm."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_flatten

from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import arguments
from sparsemend.exports.formats.format import Format, Request
from sparsemend.graphs import Graph, trace, without_idle_branches
from sparsemend.runtime.build import SOURCES, compiler
from sparsemend.runtime.lowering import Native
from sparsemend.runtime.planning import Plan, plan, plan_untried
from sparsemend.runtime.steps import Step, instruction_sets, library

_VECTOR, _MOST = 8, 12
"""Vectors that any machine has, or that compilers make of what it has."""

_MAKEFILE = """\
# make; ./main INPUT.bin    INPUT.bin: float32, one batch after the other
CC ?= cc
CFLAGS ?= -O3
main: main.c network.c network.h weights.h
\t$(CC) $(CFLAGS) -std=gnu11 -ffp-contract=fast -Wno-psabi main.c network.c -o $@ -lm
clean:
\trm -f main
.PHONY: clean
"""

_HEADER = """\
/* {name}: a sparse network, exported by sparsemend. Plain C for GCC and Clang, on any machine. */
#ifndef NETWORK_H
#define NETWORK_H

/* Numbers (floats) of each input and output, contiguous as in PyTorch:
{shapes} */
#define NETWORK_INPUTS {inputs}
#define NETWORK_OUTPUTS {outputs}
extern const long network_input_sizes[NETWORK_INPUTS];
extern const long network_output_sizes[NETWORK_OUTPUTS];

/* Run the network. It keeps its buffers, so that only one thread may run it at a time. */
void network_run(const float *const inputs[NETWORK_INPUTS], float *const outputs[NETWORK_OUTPUTS]);

#endif
"""

_MAIN = """\
/* Runs the network on every batch of a file of float32 numbers and prints the outputs, a line for
 * each batch. */
#include <stdio.h>
#include <stdlib.h>

#include "network.h"

int main(int count, char **words) {
    if (count != 2) {
        fprintf(stderr, "usage: %s INPUT.bin\\n", words[0]);
        return 2;
    }
    FILE *file = fopen(words[1], "rb");
    if (!file) {
        perror(words[1]);
        return 1;
    }
    float *inputs[NETWORK_INPUTS], *outputs[NETWORK_OUTPUTS];
    for (int i = 0; i < NETWORK_INPUTS; i++)
        if (!(inputs[i] = malloc(sizeof(float) * (size_t)network_input_sizes[i]))) return 1;
    for (int i = 0; i < NETWORK_OUTPUTS; i++)
        if (!(outputs[i] = malloc(sizeof(float) * (size_t)network_output_sizes[i]))) return 1;
    for (;;) {
        for (int i = 0; i < NETWORK_INPUTS; i++) {
            const size_t size = (size_t)network_input_sizes[i];
            if (fread(inputs[i], sizeof(float), size, file) != size) return 0;
        }
        network_run((const float *const *)inputs, outputs);
        for (int i = 0; i < NETWORK_OUTPUTS; i++)
            for (long j = 0; j < network_output_sizes[i]; j++) printf("%.9g ", outputs[i][j]);
        printf("\\n");
    }
}
"""

_NETWORK = """\
/* The kernels, and the steps of the network. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "network.h"
#include "weights.h"

{steps}
#define LANES {vector}
#define MOST {most}
#define NAME(x) kernel_##x
#define TARGET
#define PLANES
{kernels}
static float arena[{arena}] __attribute__((aligned(64)));

static const struct step steps[] = {{
{table}
}};

const long network_input_sizes[NETWORK_INPUTS] = {{{input_sizes}}};
const long network_output_sizes[NETWORK_OUTPUTS] = {{{output_sizes}}};

void network_run(const float *const inputs[NETWORK_INPUTS],
                 float *const outputs[NETWORK_OUTPUTS]) {{
    float *const outside[] = {{{outside}}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        kernel_run_step(steps + i, arena, (const char *)weights, outside, 0, 1);
}}
"""


def _write(request: Request) -> None:
    assert request.example is not None
    graph = without_idle_branches(trace(request.model, request.example).graph)
    leaves, _ = tree_flatten(arguments(request.example))
    inputs = [leaf.cpu() for leaf in leaves]
    files = _files(graph, inputs, type(request.model).__name__)
    for name, content in files.items():
        (request.path / name).write_bytes(content.encode())


def _files(graph: Graph, inputs: list[Tensor], name: str) -> dict[str, str]:
    """Every file of the export: name → text."""
    made = _plan(graph, inputs)
    program = made.program
    if program.foreign:
        names = ", ".join(program.foreign_names) or "reshape"
        raise SparsemendError(
            f"the C export has no code for what PyTorch runs in this network: {names}",
            fix="export it as packed or onnx",
        )
    stages = [stage for stage in program.stages if isinstance(stage, Native)]
    shapes = {name: program.shapes[name] for name in (*graph.inputs, *graph.outputs)}
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    places = {name: f"(float *)inputs[{i}]" for i, name in enumerate(graph.inputs)}
    places |= {name: f"outputs[{i}]" for i, name in enumerate(graph.outputs)}
    listing = "\n".join(f" *   {name} {list(shape)}" for name, shape in shapes.items())
    network = _NETWORK.format(
        steps=(SOURCES / "steps.h").read_text(encoding="utf-8"),
        kernels=(SOURCES / "kernels.h").read_text(encoding="utf-8"),
        vector=_VECTOR,
        most=_MOST,
        arena=program.arena,
        table="\n".join(f"    {_literal(step)}," for stage in stages for step in stage.steps),
        input_sizes=", ".join(str(sizes[name]) for name in graph.inputs),
        output_sizes=", ".join(str(sizes[name]) for name in graph.outputs),
        outside=", ".join(places[n] for n in sorted(program.slots, key=program.slots.__getitem__)),
    )
    header = _HEADER.format(name=name, shapes=listing, inputs=len(graph.inputs),
                            outputs=len(graph.outputs))  # fmt: skip
    return {
        "network.c": network,
        "network.h": header,
        "weights.h": _words(made.weights),
        "main.c": _MAIN,
        "Makefile": _MAKEFILE,
    }


def _plan(graph: Graph, inputs: list[Tensor]) -> Plan:
    """Tiles as they are fastest here with vectors of the same length, if the kernels are built."""
    shapes = graph.shapes(inputs)
    for name in instruction_sets():
        kernels = library(name)
        if kernels is not None and kernels.lanes == _VECTOR:
            return plan(graph, shapes, kernels, "planes", with_dense=False)
    return plan_untried(graph, shapes, vector=_VECTOR, most=_MOST)


def _literal(value: Any) -> str:
    """A structure as C writes it."""
    if not isinstance(value, ctypes.Structure):
        return str(int(value))
    names = {"input": "in", "output": "out"} if isinstance(value, Step) else {}
    fields = [(names.get(name, name), getattr(value, name)) for name, *_ in value._fields_]
    texts = (f".{name} = {_literal(field)}" for name, field in fields
             if isinstance(field, ctypes.Structure) or field)  # fmt: skip
    return f"{{{', '.join(texts)}}}"


def _words(weights: NDArray[np.uint8]) -> str:
    """Weights as 32-bit words: the same on machines of either byte order."""
    words = [f"0x{word:x}" for word in weights.view("<u4").tolist()]
    lines = (", ".join(words[i : i + 12]) for i in range(0, len(words), 12))
    body = ",\n".join(lines)
    return (
        "#include <stdint.h>\n\nstatic const uint32_t weights[] "
        f"__attribute__((aligned(64))) = {{\n{body}\n}};\n"
    )


def _read(request: Request) -> Callable[..., Any] | None:
    """The program, compiled; None without a compiler."""
    command = compiler()
    if command is None or shutil.which("make") is None:
        return None
    return lambda *inputs: run_folder(request.path, inputs, f"CC={' '.join(command)}", "CFLAGS=-O1")


def run_folder(
    folder: Path, inputs: Any, *settings: str, emulator: Sequence[str] = ()
) -> tuple[Tensor, ...]:
    """Compile an export elsewhere, run it on one batch and return its outputs, flat in one row.

    Parameters
    ----------
    folder
        The export.
    inputs
        Tensors of one batch.
    settings
        Of make, such as ``"CFLAGS=-O3 -march=native"``.
    emulator
        Command that runs programs of the machine that was compiled for, if that is not this one.

    Raises
    ------
    SparsemendError
        If it cannot be compiled or run; says what was said.
    """
    with tempfile.TemporaryDirectory() as place:
        copied = Path(place) / "export"
        shutil.copytree(folder, copied)
        data = Path(place) / "input.bin"
        data.write_bytes(b"".join(x.float().contiguous().numpy().tobytes() for x in inputs))
        for words in (
            ["make", "-s", "-C", str(copied), *settings],
            [*emulator, str(copied / "main"), str(data)],
        ):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SparsemendError(f"{words[0]} failed in the C export: {done.stderr}")
    return (torch.tensor([float(word) for word in done.stdout.split()]),)


C = Format("c", _write, _read, ())
