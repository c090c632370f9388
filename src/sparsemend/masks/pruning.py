"""Choose masks for an allocation and apply them: zeros in place, nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from numbers import Integral

import torch
from torch import Tensor, nn

from sparsemend.boundary import public
from sparsemend.calibration import Calibration
from sparsemend.errors import SparsemendError
from sparsemend.execution.copies import copied
from sparsemend.execution.offload import lent, returned
from sparsemend.execution.restoring import restored_on_error
from sparsemend.layers import (
    LayerSet,
    discover,
    layer_parameter,
    layer_weight,
    layer_weights,
    stored_weight,
    weight_matrix,
)
from sparsemend.masks.coupled import coupled_masks
from sparsemend.masks.registry import get_lone_mask_rule
from sparsemend.masks.rule import MaskProblem
from sparsemend.masks.verification import verify_masks
from sparsemend.patterns import FREE, parse_pattern

Masks = dict[str, Tensor]


@public
def prune(
    model: nn.Module,
    allocation: Mapping[str, int],
    mask: str = "magnitude",
    *,
    calibration: Calibration | None = None,
    pattern: str = FREE.name,
    inplace: bool = False,
) -> nn.Module:
    """Zero all but the allocated number of weights of every layer.

    Parameters
    ----------
    model
        The dense network; unchanged unless ``inplace``.
    allocation
        Layer name → number of weights to keep, exactly.
    mask
        ``"magnitude"``: the largest |w| of the layer. ``"activation"``: Wanda
        (arXiv 2306.11695), |w_ij| · ‖x_j‖ within each row; needs ``calibration``.
    calibration
        Of the dense network.
    pattern
        Which weights can be kept, as in :func:`sparsemend.compress`; the allocation has to be one
        for it, as :func:`sparsemend.allocate` makes it. Which layers keep the same channels is
        known with a ``calibration``.
    inplace
        Change the model that was passed; interrupted, it is as it was, for which a copy of its
        parameters and buffers is held.

    Returns
    -------
    nn.Module
        The pruned network: same class, same parameter names, zeros where pruned.

    Raises
    ------
    SparsemendError
        If the allocation does not fit the model or the pattern, or mask or pattern are unknown.
    """
    found = calibration.layers if calibration is not None else discover(model)
    layers = _with_pattern(found, pattern, allocation)
    masks = choose_masks(model, allocation, mask, layers=layers, calibration=calibration)
    pruned = model if inplace else copied(model)
    with restored_on_error(pruned) if inplace else nullcontext():
        apply_masks(pruned, masks, layers)
        verify_masks(pruned, masks, allocation, layers)
    return pruned


def choose_masks(
    model: nn.Module,
    allocation: Mapping[str, int],
    mask: str = "magnitude",
    *,
    layers: LayerSet | None = None,
    calibration: Calibration | None = None,
) -> Masks:
    """Masks with exactly the allocated counts: layer name → boolean tensor, True is kept.

    Shapes are those of the weights as the layers multiply with them. Parameters and errors as in
    :func:`prune`.
    """
    rule = get_lone_mask_rule(mask)
    if layers is None:
        layers = calibration.layers if calibration is not None else discover(model)
    weights = layer_weights(model, layers)
    check_fit(allocation, layers)
    counts = {name: int(kept) for name, kept in allocation.items()}

    def problem(name: str) -> MaskProblem:
        moments = lent(calibration.moments[name]) if calibration is not None else None
        matrix = lent(weight_matrix(weights[name], layers[name]))
        return MaskProblem(matrix, moments, structure=layers[name].structure)

    masks: Masks = {}
    for name in counts:
        if name in masks:
            continue
        coupled = [other for other in layers[name].structure.coupled if other in counts]
        if len(coupled) > 1:
            found = coupled_masks(rule, {other: problem(other) for other in coupled}, counts)
        else:
            found = {name: rule.mask(problem(name), counts[name])}
        masks |= {o: returned(stored_weight(mask, layers[o])) for o, mask in found.items()}
    return {name: masks[name] for name in counts}


def apply_masks(
    model: nn.Module, masks: Mapping[str, Tensor], layers: LayerSet | None = None
) -> None:
    """Zero the weights outside the masks, in place.

    Parameters
    ----------
    model
        The network to prune.
    masks
        Layer name → boolean tensor, True is kept.
    layers
        Of the network; needed where a layer is no module's whole weight.
    """
    chosen = discover(model) if layers is None else layers
    with torch.no_grad():
        for name, mask in masks.items():
            # Not a product: that would turn pruned weights into -0.
            layer_weight(model, chosen[name]).masked_fill_(~mask, 0)


@public
def find_masks(model: nn.Module, layers: LayerSet | None = None) -> Masks:
    """Masks of a pruned model, recovered from its zeros: layer name → boolean tensor, True is kept.

    Shapes are those of the weights as the layers multiply with them.
    """
    chosen = discover(model) if layers is None else layers
    return {layer.name: layer_weight(model, layer) != 0 for layer in chosen}


def parameter_masks(model: nn.Module, masks: Masks, layers: LayerSet) -> Masks:
    """Masks of layers as masks of the parameters that hold them.

    Parameters
    ----------
    model, layers
        The network and its layers.
    masks
        Layer name → boolean tensor, True is kept.

    Returns
    -------
    dict
        Name of a parameter → boolean tensor of its shape, also True for what no layer prunes.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: Masks = {}
    for layer in (layers[name] for name in masks):
        parameter, view = layer_parameter(model, layer), layer.weight
        key = names[id(parameter)]
        if view is None or (view.shape, view.stride) == (view.whole, view.layout):
            found[key] = masks[layer.name]
            continue
        if key not in found:
            found[key] = torch.empty_strided(
                view.whole, view.layout, dtype=torch.bool, device=parameter.device
            ).fill_(True)
        found[key].as_strided(view.shape, view.stride, view.offset).copy_(masks[layer.name])
    return found


def _with_pattern(layers: LayerSet, pattern: str, allocation: Mapping[str, int]) -> LayerSet:
    """The layers with the pattern; refuses a count for one that cannot have it."""
    chosen = parse_pattern(pattern)
    for layer in layers:
        refusal = chosen.refusal(layer.matrix_shape)
        if refusal and layer.name in allocation:
            raise SparsemendError(f"layer {layer.name!r} cannot have the pattern: {refusal}")
    return layers if chosen == FREE else layers.with_pattern(chosen)


def check_fit(allocation: Mapping[str, int], layers: LayerSet) -> None:
    """Refuse counts of other layers, or that these cannot keep.

    Raises
    ------
    SparsemendError
        Naming the layers, or the count and those that the layer can keep.
    """
    missing = [name for name in allocation if name not in layers.names]
    if missing:
        raise SparsemendError(
            "the allocation names layers that the model does not have",
            missing[:5],
            ", ".join(layers.names),
        )
    for name, kept in allocation.items():
        if not _is_count(kept, layers[name].size):
            raise SparsemendError(
                f"layer {name!r} cannot keep this many weights",
                kept,
                f"a whole number from 0 to {layers[name].size}",
            )
        around = dict.fromkeys(layers[name].structure.around(int(kept)))
        if int(kept) not in around:
            raise SparsemendError(
                f"layer {name!r} cannot keep this many weights in pattern "
                f"{layers[name].pattern.name!r}",
                int(kept),
                " or ".join(map(str, around)),
                "allocate for this pattern: sparsemend.allocate(..., pattern=...)",
            )


def _is_count(value: object, size: int) -> bool:
    """Whole numbers only: a density such as 0.5, given by mistake, would keep one weight."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    return is_whole and 0 <= int(value) <= size  # type: ignore[call-overload]
