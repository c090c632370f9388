"""Find the prunable layers of a network by running it once."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.execution.batches import Batch, call, cut, evaluation_mode
from sparsemend.finite import check_network
from sparsemend.layers.access import layer_weight
from sparsemend.layers.calls import LayerCalls
from sparsemend.layers.channels import coupled_layers
from sparsemend.layers.coverage import Coverage, measure_coverage, prunable_sites
from sparsemend.layers.graph import Graph, scan, trace
from sparsemend.layers.kinds import Call, kind_of, labels, plain_layers
from sparsemend.layers.layer import Layer
from sparsemend.layers.refusals import check_copy, refuse_unsupported
from sparsemend.layers.sites import Site, Uses
from sparsemend.patterns import Pattern

# One input could hide what an operation does across inputs.
_TRACED_INPUTS = 2
_RUNS_AGAIN = 3
NORMALISATIONS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)


class LayerSet(Sequence[Layer]):
    """The prunable layers of a network in execution order.

    Attributes
    ----------
    graph
        The traced forward pass.
    coverage
        How much of the network they are, and what was left out and why.
    others
        Layers that could be pruned as well, but were not chosen.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        graph: Graph,
        coverage: Coverage,
        geometries: Mapping[str, Any] | None = None,
        others: Sequence[Layer] = (),
    ) -> None:
        self._layers = tuple(layers)
        self._by_name = {layer.name: layer for layer in layers}
        self._geometries = dict(geometries or {})
        self.graph = graph
        self.coverage = coverage
        self.others = tuple(others)

    def __repr__(self) -> str:
        return f"LayerSet({', '.join(map(repr, self.names))})"

    def geometry(self, name: str) -> Any:
        """How a layer is called, as its kind reads it; see :class:`sparsemend.layers.Call`."""
        return self._geometries[name]

    def only(self, names: Sequence[str], reason: str) -> LayerSet:
        """These layers in this order; the coverage says of the others why they were left out."""
        layers = [dataclasses.replace(self[name], order=order) for order, name in enumerate(names)]
        rest = [layer for layer in self._layers if layer.name not in names]
        coverage = self.coverage.without(rest, reason)
        return LayerSet(layers, self.graph, coverage, self._geometries, (*self.others, *rest))

    def with_pattern(self, pattern: Pattern) -> LayerSet:
        """The same layers, of which only some weights can be kept.

        Of whole channels, layers that meet in a sum keep the same where the graph is known.
        """
        patterns = dict.fromkeys(self.names, pattern)
        if pattern.takes_channels:
            for names in coupled_layers(self.graph, self, self.others):
                patterns |= dict.fromkeys(names, pattern.coupled_as(names))
        layers = [dataclasses.replace(x, pattern=patterns[x.name]) for x in self]
        return LayerSet(layers, self.graph, self.coverage, self._geometries, self.others)

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


def find_layers(
    model: nn.Module, batch: Batch | None, more: Iterable[Batch] = (), *, tied: bool = False
) -> LayerSet:
    """All layers of a network; see :func:`sparsemend.layers.discover`.

    Parameters
    ----------
    model, batch, more
        As there.
    tied
        Whether weights that are tied to an embedding are layers.
    """
    refuse_unsupported(model)
    check_network(model)
    if batch is None:
        return _registered(model)
    norms = _modules_of(model, lambda module: isinstance(module, NORMALISATIONS))
    check_copy(model, batch)
    uses = Uses(model)
    graph = _trace(model, batch, norms, uses)
    _find_stale(model, batch, uses)
    for further in (batch, *more):
        if not _unreached(model, uses):
            break
        scan(model, further, uses)
    sites = prunable_sites(uses, tied=tied)
    layers = [_describe(model, site, order) for order, site in enumerate(sites)]
    following = _following_norms(graph, layers, {n: m for m, n in norms.items()})
    layers = [dataclasses.replace(x, norm=following.get(x.name)) for x in layers]
    coverage = measure_coverage(model, layers, uses)
    if not layers:
        raise _no_layers("that runs", coverage)
    if coverage.covered < coverage.matrix:
        warnings.warn(str(coverage), SparsemendWarning, stacklevel=2)
    return LayerSet(layers, graph, coverage, {site.name: site.geometry for site in sites})


def layer_weights(
    model: nn.Module, layers: Sequence[Layer], source: str = "calibration"
) -> dict[str, Tensor]:
    """Layer name → its weight tensor, detached, of the model that the layers were found in.

    ``source`` says, for the error's text, where they come from.

    Raises
    ------
    SparsemendError
        If the layers are not those of the model.
    """
    weights: dict[str, Tensor] = {}
    for layer in layers:
        found = "no weight"
        try:
            weight = layer_weight(model, layer)
            if tuple(weight.shape) == layer.shape:
                weights[layer.name] = weight
                continue
            found = f"weight shape {tuple(weight.shape)}"
        except AttributeError:  # no such module
            pass
        except ValueError as error:
            found = str(error)
        raise SparsemendError(
            f"the {source} is of another network: layer {layer.name!r} has {found}",
            allowed=f"{layer.shape}, as calibrated",
            fix="calibrate this model first",
        )
    return weights


def _registered(model: nn.Module) -> LayerSet:
    """Layers in the order of registration, where there are no inputs to run."""
    held = {name: module for name, module in plain_layers(model).items() if _holds_weights(module)}
    layers = []
    for order, names in enumerate(_tied(held)):
        module: Any = model.get_submodule(names[0])
        kind = kind_of(module)
        rows, groups = kind.rows(module), kind.groups(module)
        for other in map(model.get_submodule, names[1:]):
            tied = kind_of(other)
            if (tied, tied.rows(other), tied.groups(other)) != (kind, rows, groups):
                raise _read_differently(*names[:2])
        layers.append(
            Layer(
                name=names[0],
                kind=kind.name_of(module),
                shape=tuple(module.weight.shape),
                groups=groups,
                rows=rows,
                fan_in=module.weight.numel() // rows,
                order=order,
                calls=len(names),
                aliases=tuple(names[1:]),
            )
        )
    coverage = measure_coverage(model, layers)
    if not layers:
        raise _no_layers("", coverage)
    return LayerSet(
        layers, Graph(), coverage, {x.name: model.get_submodule(x.name) for x in layers}
    )


def _modules_of(model: nn.Module, belongs: Callable[[nn.Module], bool]) -> dict[nn.Module, str]:
    return {module: name for name, module in model.named_modules() if belongs(module)}


def _tied(modules: Mapping[str, Any]) -> list[list[str]]:
    """Names grouped by the weight tensor that they share, in the order of registration."""
    groups: dict[int, list[str]] = defaultdict(list)
    for name, module in modules.items():
        groups[id(module.weight)].append(name)
    return list(groups.values())


def _no_layers(which: str, coverage: Coverage) -> SparsemendError:
    reasons = "; ".join(
        f"{parts[0].parameter}: {reason}" for reason, parts in coverage.reasons().items()
    )
    return SparsemendError(
        f"the model has no prunable layer {which}".rstrip(),
        allowed=f"at least one {labels()}",
        fix=f"left out: {reasons}" if reasons else "",
    )


def _read_differently(name: str, other: str) -> SparsemendError:
    return SparsemendError(
        f"layers {name!r} and {other!r} share a weight but read it differently",
        allowed="tied layers of the same kind, rows and groups",
        fix="give one of them a copy of the weight",
    )


def _describe(model: nn.Module, site: Site, order: int) -> Layer:
    kind = kind_of(site.geometry)
    rows, shape = kind.rows(site.geometry), site.weight.shape
    parameter = model.get_parameter(site.weight.parameter)
    paths = [
        path
        for path, module in model.named_modules()
        if module._parameters.get("weight") is parameter and path != site.name
    ]
    return Layer(
        name=site.name,
        kind=kind.name_of(site.geometry),
        shape=shape,
        groups=kind.groups(site.geometry),
        rows=rows,
        fan_in=math.prod(shape) // rows,
        order=order,
        calls=site.calls,
        aliases=tuple(paths) if math.prod(shape) == parameter.numel() else (),
        weight=site.weight,
        biases=tuple(site.biases),
        takes_bias=site.takes_bias,
    )


def _holds_weights(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return isinstance(weight, Tensor) and weight.numel() > 0


def _unreached(model: nn.Module, uses: Uses) -> bool:
    """Whether there are matrices, or parts of them, that no operation has used yet."""
    seen: Counter[str] = Counter()
    for site in uses.sites.values():
        seen[site.weight.parameter] += math.prod(site.weight.shape)
    other = uses.looked_up | uses.computed | set(uses.otherwise)
    return any(
        parameter.dim() > 1 and seen[name] < parameter.numel() and name not in other - set(seen)
        for name, parameter in model.named_parameters()
    )


def _find_stale(model: nn.Module, batch: Batch, uses: Uses) -> None:
    """Note the weights that are not used when the network runs again.

    It may keep what it has computed from them, which would stay as it is when they are pruned.
    """
    layers = [_describe(model, site, order) for order, site in enumerate(uses.sites.values())]
    unseen = {layer.name: layer.weight for layer in layers}

    def note(layer: Layer, _: Call) -> None:
        unseen.pop(layer.name, None)

    for _ in range(_RUNS_AGAIN):  # a network may take turns
        if unseen:
            with evaluation_mode(model), LayerCalls(model, layers, before=note):
                try:
                    call(model, cut(batch, 0, _TRACED_INPUTS))
                except SparsemendError:
                    call(model, batch)
    uses.stale |= {weight.parameter for weight in unseen.values() if weight is not None}


def _following_norms(
    graph: Graph, layers: Sequence[Layer], norms: Mapping[str, nn.Module]
) -> dict[str, str]:
    """Layer → the normalisation that takes its output, and nothing else's, every time."""
    consumers = graph.consumers()
    runs: dict[str, list[int]] = defaultdict(list)
    for node in graph.nodes:
        if node.kind == "module":
            runs[node.name].append(node.index)
    following: dict[str, str] = {}
    for layer in layers:
        if layer.aliases or not runs[layer.name]:
            continue
        heirs = {
            None if heir is None or heir.kind != "module" else heir.name
            for heir in (graph.sole_consumer(index, consumers) for index in runs[layer.name])
        }
        norm = heirs.pop()
        if norm is None or norm not in norms or heirs or len(runs[norm]) != len(runs[layer.name]):
            continue
        # A norm behind a flattening may have other channels than the layer.
        channels = getattr(norms[norm], "num_features", getattr(norms[norm], "num_channels", None))
        if channels is None or channels == layer.rows:
            following[layer.name] = norm
    claimed = list(following.values())
    return {layer: norm for layer, norm in following.items() if claimed.count(norm) == 1}


def _trace(model: nn.Module, batch: Batch, watched: Mapping[nn.Module, str], uses: Uses) -> Graph:
    """Run the model on the first inputs, or on all where the model cannot run on these."""
    try:
        return trace(model, cut(batch, 0, _TRACED_INPUTS), watched, uses)
    except SparsemendError:  # a tensor of as many rows was not one of inputs; or no batch fits
        return trace(model, batch, watched, uses)
