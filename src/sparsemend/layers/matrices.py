"""A layer's weight, inputs and outputs as matrices, whatever its kind.

The weight of a layer is seen as [groups, rows per group, fan-in]; its inputs are unfolded to
[groups, positions, fan-in], so that pre-activations are ``inputs @ matrix.mT`` plus bias. How, is
for the layer's kind to say (:mod:`sparsemend.layers.kinds`).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from sparsemend.errors import SparsemendError
from sparsemend.layers.kinds import is_layer, kind_named, kind_of
from sparsemend.layers.layer import Layer


def weight_matrix(weight: Tensor, layer: Layer) -> Tensor:
    """View a stored weight as [groups, rows per group, fan-in]."""
    return kind_named(layer.kind).weight_matrix(weight, layer)


def stored_weight(matrix: Tensor, layer: Layer) -> Tensor:
    """Inverse of :func:`weight_matrix`: back to the shape that the module stores."""
    return kind_named(layer.kind).stored_weight(matrix, layer)


def unfold(module: nn.Module, inputs: Tensor) -> Iterator[Tensor]:
    """Unfold a module's input into chunks [groups, positions, fan-in] of bounded size.

    Parameters
    ----------
    module
        A module of one of the kinds.
    inputs
        What the module is called with, such as [N, C_in, *spatial] or [C_in, *spatial] for
        convolutions, [..., features] for linear layers.

    Returns
    -------
    Iterator of Tensor
        Chunks of at most about 16 million elements that together hold every output position.

    Raises
    ------
    SparsemendError
        If the module is of no kind.
    """
    if not is_layer(module):
        raise SparsemendError("cannot unfold the input of this module", type(module).__name__)
    return kind_of(module).unfold(module, inputs)


def count_positions(module: nn.Module, inputs: Tensor) -> int:
    """Number of positions that :func:`unfold` gives; of transposed convolutions, borders aside."""
    return kind_of(module).count_positions(module, inputs)


def batched(module: nn.Module, inputs: Tensor) -> Tensor:
    """What a module is called with, with a batch dimension where the module can do without."""
    return kind_of(module).batched(module, inputs)


def arranged(module: nn.Module, inputs: Tensor) -> Tensor:
    """A batched input in the memory layout in which its device multiplies it fastest.

    The same values; for work that passes over an input several times. Outputs have that layout too.
    """
    return kind_of(module).arranged(module, inputs)


def pad_input(module: nn.Module, inputs: Tensor) -> Tensor:
    """Pad a batched input as the module itself would."""
    return kind_of(module).pad(module, inputs)


def mean_patch(module: nn.Module, inputs: Tensor) -> Tensor:
    """Unfolded inputs, averaged over the positions of every input.

    Parameters
    ----------
    module
        The layer's module.
    inputs
        With a batch dimension N.

    Returns
    -------
    Tensor
        [groups, N, fan-in].
    """
    return kind_of(module).mean_patch(module, inputs)


def channel_last(module: nn.Module, output: Tensor) -> Tensor:
    """A layer's output as [positions, channels], one row per output position."""
    return kind_of(module).channel_last(module, output)


def per_input(layer: Layer, output: Tensor) -> Tensor:
    """A layer's batched output as [inputs, channels, positions of one input], without a copy."""
    return kind_named(layer.kind).per_input(output)


def channel_shape(layer: Layer) -> tuple[int, ...]:
    """Shape in which a vector over channels broadcasts over a layer's output."""
    return kind_named(layer.kind).channel_shape(layer)
