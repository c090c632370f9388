"""Find the prunable layers of a network by running it once."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedParameter

from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.execution.batches import Batch, cut
from sparsemend.finite import check_network
from sparsemend.layers.graph import Graph, trace
from sparsemend.layers.kinds import is_layer, kind_of, labels
from sparsemend.layers.layer import Layer

# One input could hide what an operation does across inputs.
_TRACED_INPUTS = 2
NORMALISATIONS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)


class LayerSet(Sequence[Layer]):
    """The prunable layers of a network in execution order.

    Attributes
    ----------
    graph
        The traced forward pass.
    skipped
        Module path → why a module with a prunable weight is not in the set.
    """

    def __init__(self, layers: Sequence[Layer], graph: Graph, skipped: dict[str, str]) -> None:
        self._layers = tuple(layers)
        self._by_name = {layer.name: layer for layer in layers}
        self.graph = graph
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, key: int | str) -> Layer: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Layer]: ...
    def __getitem__(self, key: int | str | slice) -> Layer | Sequence[Layer]:
        """By position, slice or name."""
        if isinstance(key, str):
            if key not in self._by_name:
                raise SparsemendError(
                    "no prunable layer of this name", key, ", ".join(self._by_name)
                )
            return self._by_name[key]
        return self._layers[key]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    @property
    def total(self) -> int:
        """Number of prunable weights N, tied weights counted once."""
        return sum(layer.size for layer in self._layers)

    def __str__(self) -> str:
        width = max(len(name) for name in self.names)
        lines = [f"{'layer':<{width}}  {'kind':<16} {'weights':>10}  following norm"]
        lines += [
            f"{layer.name:<{width}}  {layer.kind:<16} {layer.size:>10,}  {layer.norm or '-'}"
            for layer in self._layers
        ]
        return "\n".join(lines)


def discover(model: nn.Module, batch: Batch | None = None) -> LayerSet:
    """Find every layer of a known kind that runs, by following tensors.

    Parameters
    ----------
    model
        Any network; not changed. Runs once, in evaluation mode, on at most two inputs.
    batch
        A batch of inputs in any form that the model takes. Without one, nothing runs: layers
        come in the order of registration, and what follows them is not known.

    Returns
    -------
    LayerSet
        Layers in execution order, tied weights once, with the normalisation behind each.

    Raises
    ------
    SparsemendError
        If no prunable layer runs, a weight is lazy or reparametrised, parameters or statistics
        of normalisations are not finite, or the batch does not fit the model.
    """
    prunable = _modules_of(model, is_layer)
    for module, name in prunable.items():
        _check_weight(name, module)
    check_network(model)
    if batch is None:
        return _registered(prunable)
    norms = _modules_of(model, lambda module: isinstance(module, NORMALISATIONS))
    graph = _trace(model, batch, {**prunable, **norms})
    runs: dict[str, list[int]] = defaultdict(list)
    for node in graph.nodes:
        if node.kind == "module":
            runs[node.name].append(node.index)

    modules: dict[str, Any] = {name: module for module, name in prunable.items()}
    executed: dict[int, list[str]] = {}  # first run → names of one weight tensor
    skipped: dict[str, str] = {}
    for names in _tied(modules):
        starts = [runs[name][0] for name in names if name in runs]
        if starts:
            executed[min(starts)] = names
        else:
            skipped |= dict.fromkeys(names, "did not run in the forward pass")
    alone = {names[0]: modules[names[0]] for names in executed.values() if len(names) == 1}
    following = _following_norms(graph, runs, alone, {n: m for m, n in norms.items()})

    layers = []
    for order, (_, names) in enumerate(sorted(executed.items())):
        calls = sum(len(runs.get(name, ())) for name in names)
        layers.append(_describe(names, modules, order, calls, following.get(names[0])))
    if not layers:
        raise _no_layers("that runs")
    if skipped:
        warnings.warn(
            f"not pruned, because they did not run as modules: {', '.join(skipped)}",
            SparsemendWarning,
            stacklevel=2,
        )
    return LayerSet(layers, graph, skipped)


def layer_weights(model: nn.Module, layers: LayerSet) -> dict[str, Tensor]:
    """Layer name → its weight tensor, detached, of a model that was calibrated.

    Raises
    ------
    SparsemendError
        If the layers are not those of the model.
    """
    modules = dict(model.named_modules())
    weights: dict[str, Tensor] = {}
    for layer in layers:
        weight = getattr(modules.get(layer.name), "weight", None)
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else None
        if not isinstance(weight, Tensor) or shape != layer.shape:
            found = "no weight" if shape is None else f"weight shape {shape}"
            raise SparsemendError(
                f"the calibration is of another network: layer {layer.name!r} has {found}",
                allowed=f"{layer.shape}, as calibrated",
                fix="calibrate this model first",
            )
        weights[layer.name] = weight.detach()
    return weights


def _registered(prunable: Mapping[nn.Module, str]) -> LayerSet:
    """Layers in the order of registration, where there are no inputs to run."""
    modules: dict[str, Any] = {name: module for module, name in prunable.items()}
    layers = [
        _describe(names, modules, order, len(names), None)
        for order, names in enumerate(_tied(modules))
    ]
    if not layers:
        raise _no_layers("")
    return LayerSet(layers, Graph(), {})


def _modules_of(model: nn.Module, belongs: Callable[[nn.Module], bool]) -> dict[nn.Module, str]:
    return {module: name for name, module in model.named_modules() if belongs(module)}


def _tied(modules: Mapping[str, Any]) -> list[list[str]]:
    """Names grouped by the weight tensor that they share, in the order of registration."""
    groups: dict[int, list[str]] = defaultdict(list)
    for name, module in modules.items():
        groups[id(module.weight)].append(name)
    return list(groups.values())


def _no_layers(which: str) -> SparsemendError:
    return SparsemendError(
        f"the model has no prunable layer {which}".rstrip(),
        allowed=f"at least one {labels()}",
    )


def _describe(
    names: list[str], modules: Mapping[str, Any], order: int, calls: int, norm: str | None
) -> Layer:
    module = modules[names[0]]
    shape = tuple(module.weight.shape)
    kind = kind_of(module)
    groups, rows = kind.groups(module), kind.rows(module)
    for other in names[1:]:
        tied = kind_of(modules[other])
        if (tied, tied.rows(modules[other]), tied.groups(modules[other])) != (kind, rows, groups):
            raise SparsemendError(
                f"layers {names[0]!r} and {other!r} share a weight but read it differently",
                allowed="tied layers of the same kind, rows and groups",
                fix="give one of them a copy of the weight",
            )
    return Layer(
        name=names[0],
        kind=kind.name_of(module),
        shape=shape,
        groups=groups,
        rows=rows,
        fan_in=module.weight.numel() // rows,
        order=order,
        calls=calls,
        norm=norm,
        aliases=tuple(names[1:]),
    )


def _check_weight(name: str, module: nn.Module) -> None:
    weight = module._parameters.get("weight")
    if isinstance(weight, UninitializedParameter):
        raise SparsemendError(
            f"layer {name!r} is lazy and has no weight yet", fix="run the model once first"
        )
    if weight is None:
        raise SparsemendError(
            f"layer {name!r} computes its weight (a parametrisation or an old pruning mask)",
            allowed="plain weight parameters",
            fix="make it permanent with torch.nn.utils.parametrize.remove_parametrizations or "
            "torch.nn.utils.prune.remove",
        )


def _following_norms(
    graph: Graph,
    runs: dict[str, list[int]],
    layers: Mapping[str, nn.Module],
    norms: Mapping[str, nn.Module],
) -> dict[str, str]:
    """Layer → the normalisation that takes its output, and nothing else's, every time."""
    consumers = graph.consumers()
    following: dict[str, str] = {}
    for name, module in layers.items():
        heirs = {
            None if heir is None or heir.kind != "module" else heir.name
            for heir in (graph.sole_consumer(index, consumers) for index in runs[name])
        }
        norm = heirs.pop()
        if norm is None or norm not in norms or heirs or len(runs[norm]) != len(runs[name]):
            continue
        # A norm behind a flattening may have other channels than the layer.
        channels = getattr(norms[norm], "num_features", getattr(norms[norm], "num_channels", None))
        if channels is None or channels == kind_of(module).rows(module):
            following[name] = norm
    claimed = list(following.values())
    return {layer: norm for layer, norm in following.items() if claimed.count(norm) == 1}


def _trace(model: nn.Module, batch: Batch, watched: Mapping[nn.Module, str]) -> Graph:
    """Run the model on the first inputs, or on all where the model cannot run on these."""
    try:
        return trace(model, cut(batch, 0, _TRACED_INPUTS), watched)
    except SparsemendError:  # a tensor of as many rows was not one of inputs; or no batch fits
        return trace(model, batch, watched)
