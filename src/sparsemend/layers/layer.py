"""What the library knows of one prunable layer; plain data, no tensors."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from sparsemend.layers.kinds import kind_named
from sparsemend.layers.operand import Operand
from sparsemend.patterns import FREE, MatrixShape, Pattern, Structure


@dataclass(frozen=True)
class Layer:
    """A prunable layer: one weight tensor, counted once even when modules share it.

    The weight is read as a matrix of ``rows`` output channels by ``fan_in`` columns
    (per group for grouped convolutions), as in section 1 of the method.

    Attributes
    ----------
    name
        Module path in the network, as in ``named_modules``, where a module holds the whole weight
        in ``weight``; else the parameter's name and, in brackets, which part of it.
    kind
        ``"Conv1d"``, ``"ConvTranspose2d"``, ``"Linear"`` …, as its kind names it.
    shape
        Shape of the stored weight tensor.
    groups
        Number of convolution groups (1 for linear layers).
    rows
        Output channels C.
    fan_in
        Weights of one output channel, d.
    order
        Position in execution order, from 0.
    calls
        How often the layer runs in one forward pass.
    norm
        Module path of the normalisation that alone consumes the output, or None.
    aliases
        Further module paths that hold the same weight tensor (tied weights).
    weight
        Where the weight is; None where no forward pass has shown it: the module's ``weight``.
    biases
        What is added behind it where it runs, each once.
    takes_bias
        Whether a bias that its module is given is added where the layer runs: it always runs in
        the forward pass of a module as PyTorch defines it.
    pattern
        Which of its weights can be kept.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    groups: int
    rows: int
    fan_in: int
    order: int
    calls: int = 1
    norm: str | None = None
    aliases: tuple[str, ...] = ()
    weight: Operand | None = None
    biases: tuple[Operand, ...] = ()
    takes_bias: bool = True
    pattern: Pattern = FREE

    @property
    def is_module(self) -> bool:
        """Whether a module of the layer's name holds the whole weight in ``weight``."""
        prefix = f"{self.name}." if self.name else ""
        return self.weight is None or (
            self.weight.parameter == f"{prefix}weight" and not self.name.endswith("]")
        )

    @property
    def size(self) -> int:
        """Number of weights, n = C · d."""
        return math.prod(self.shape)

    @property
    def is_convolution(self) -> bool:
        """Whether outputs are [N, channels, *spatial], computed by a kernel that moves."""
        return kind_named(self.kind).is_convolution

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Spatial extent of the kernel; empty where there is none."""
        return kind_named(self.kind).kernel_size(self)

    @property
    def matrix_shape(self) -> MatrixShape:
        """Of its weight as a matrix, columns as input channels of a group times the kernel."""
        taps = math.prod(self.kernel_size)
        return MatrixShape(self.groups, self.rows // self.groups, self.fan_in // taps, taps)

    @property
    def structure(self) -> Structure:
        """Its pattern on its weights."""
        return _structure(self.pattern, self.matrix_shape)

    @property
    def input_channels(self) -> int:
        """Input channels of all groups together."""
        return self.groups * self.fan_in // math.prod(self.kernel_size)


@functools.lru_cache(maxsize=256)
def _structure(pattern: Pattern, shape: MatrixShape) -> Structure:
    """Kept, because some have tables of their own."""
    return pattern.on(shape)
