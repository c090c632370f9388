"""Choosing layers by pattern, or by the part they play in the network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from sparsemend.boundary import public
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch, check_unlabelled
from sparsemend.layers.discovery import LayerSet, find_layers
from sparsemend.layers.joins import surroundings
from sparsemend.patterns import FREE, Pattern, parse_pattern


def _projection(layers: LayerSet) -> list[str]:
    """1×1 convolutions on a shortcut."""
    joined = (around.shortcut for around in surroundings(layers).values())
    found = {part.projection for shortcut in joined if shortcut for part in shortcut.addends}
    return [x.name for x in layers if x.name in found and set(x.kernel_size) == {1}]


def _depthwise(layers: LayerSet) -> list[str]:
    """Convolutions whose groups each see one channel."""
    return [x.name for x in layers if x.groups > 1 and x.input_channels == x.groups]


CLASSES: dict[str, Callable[[LayerSet], list[str]]] = {
    "projection": _projection,
    "first": lambda layers: [layers[0].name],
    "last": lambda layers: [layers[-1].name],
    "depthwise": _depthwise,
}


def select_layers(layers: LayerSet, pattern: str) -> tuple[str, ...]:
    """Names of the layers that are meant, in execution order.

    Parameters
    ----------
    layers
        From :func:`discover` with a batch, which the class ``projection`` needs.
    pattern
        ``projection`` (1×1 convolutions on shortcuts), ``first``, ``last``, ``depthwise``, a
        pattern of layer names with ``*``, ``?`` and ``[…]``, or, where no name matches it, a kind
        of layer such as ``Linear``. A layer of just this name counts before all of them.

    Raises
    ------
    SparsemendError
        If there is no such layer.
    """
    if pattern in CLASSES and pattern not in layers.names:
        found = CLASSES[pattern](layers)
    else:
        # Names of parts of a parameter have brackets that are no set of letters.
        found = [name for name in layers.names if name == pattern or fnmatchcase(name, pattern)]
        found = found or [layer.name for layer in layers if layer.kind == pattern]
    if not found:
        raise SparsemendError(
            "no layer of the network is meant by this pattern",
            pattern,
            f"{', '.join([*CLASSES, *dict.fromkeys(layer.kind for layer in layers)])}, "
            f"or a pattern of {', '.join(layers.names)}",
            "projections are found with inputs: pass layers=discover(model, batch)"
            if pattern == "projection" and not layers.graph.nodes
            else "",
        )
    return tuple(found)


# Matrices that an embedding looks rows up in, and that a layer multiplies with as well.
EMBEDDING = "embedding"
_NOT_CHOSEN = "not chosen"
_OUTPUTS = "its channels are outputs of the network"


@dataclass(frozen=True)
class LayerFilter:
    """Which layers of a network are pruned; all others stay as they are, and do not count.

    Attributes
    ----------
    include
        Classes and patterns as in :func:`select_layers`, of which the layers must match one;
        empty for all. ``"embedding"`` adds weights that are tied to an embedding, which are else
        left out.
    exclude
        Those of the layers that are left out.
    pattern
        Which of their weights can be kept; layers that cannot have it are left out.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pattern: Pattern = FREE

    @classmethod
    def of(
        cls,
        include: str | Iterable[str] = (),
        exclude: str | Iterable[str] = (),
        pattern: str = FREE.name,
    ) -> LayerFilter:
        """From one name, pattern of names or class of layers, or several, and a sparsity pattern.

        Raises
        ------
        SparsemendError
            If they are no texts, or the pattern is unknown.
        """
        chosen = _several("include", include), _several("exclude", exclude)
        return cls(*chosen, parse_pattern(pattern))

    def apply(self, layers: LayerSet) -> LayerSet:
        """The layers that are left.

        Raises
        ------
        SparsemendError
            If a pattern means no layer, none is left, or none can have the sparsity pattern.
        """
        outputs = _outputs(layers) if self.pattern.takes_channels else ()
        wanted = [pattern for pattern in self.include if pattern != EMBEDDING]
        chosen = {name for pattern in wanted for name in select_layers(layers, pattern)}
        if not wanted:
            chosen = set(layers.names)
        for pattern in self.exclude:
            if pattern != EMBEDDING:
                chosen -= set(select_layers(layers, pattern))
        if not chosen:
            raise SparsemendError(
                "no layer is left to prune",
                f"include {list(self.include)}, exclude {list(self.exclude)}",
                f"at least one of {', '.join(layers.names)}",
            )
        if len(chosen) < len(layers):
            layers = layers.only([name for name in layers.names if name in chosen], _NOT_CHOSEN)
        return layers if self.pattern == FREE else _patterned(layers, self.pattern, outputs)


def _patterned(layers: LayerSet, pattern: Pattern, outputs: Collection[str]) -> LayerSet:
    """The layers that can have a sparsity pattern, with it; those of the outputs stay dense."""
    refusals = {
        layer.name: _OUTPUTS if layer.name in outputs else pattern.refusal(layer.matrix_shape)
        for layer in layers
    }
    if all(refusals.values()):
        raise SparsemendError(
            f"no layer can have pattern {pattern.name!r}",
            "; ".join(f"{name}: {refusal}" for name, refusal in [*refusals.items()][:3]),
        )
    for reason in dict.fromkeys(refusal for refusal in refusals.values() if refusal):
        layers = layers.only([name for name in layers.names if refusals[name] != reason], reason)
    return layers.with_pattern(pattern)


def _outputs(layers: LayerSet) -> list[str]:
    """Layers whose channels are outputs of the network; without a graph, the last of all."""
    if not layers.graph.nodes:
        return [] if layers.others else [layers.names[-1]]
    return [name for name, around in surroundings(layers).items() if around.final]


def _several(name: str, patterns: str | Iterable[str]) -> tuple[str, ...]:
    """One text is one pattern, not its letters; of equal ones the first."""
    given = (patterns,) if isinstance(patterns, str) else patterns
    several = tuple(dict.fromkeys(given)) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(pattern, str) for pattern in several):
        raise SparsemendError(
            f"{name} is no name of layers", patterns, "a name, a pattern or a class, or several"
        )
    return several


@public
def discover(
    model: nn.Module,
    batch: Batch | None = None,
    more: Iterable[Batch] = (),
    *,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    pattern: str = FREE.name,
) -> LayerSet:
    """Find every weight that the network multiplies with, by following tensors.

    Parameters
    ----------
    model
        Any network; not changed. Runs in evaluation mode, on two inputs where these reach every
        matrix, else on one batch after the other until all are reached.
    batch
        A batch of inputs in any form that the model takes. Without one, nothing runs: layers
        are the modules of known kinds in the order of registration, and what follows them is
        not known.
    more
        Further batches, for what the first does not reach, such as experts.
    include, exclude
        Layer names, patterns of them with ``*``, ``?`` and ``[…]``, or ``first``, ``last``,
        ``projection`` (1×1 convolutions on shortcuts), ``depthwise``, or kinds of layers such as
        ``Linear``; of ``include`` a layer must match one, of ``exclude`` none.
        ``include="embedding"`` adds weights that are tied to an embedding.
    pattern
        Of the weights that can be kept, as in :func:`sparsemend.compress`; layers that cannot have
        it are left out.

    Returns
    -------
    LayerSet
        Layers in execution order, tied weights once, with the normalisation behind each; its
        ``coverage`` says what was left out and why.

    Raises
    ------
    SparsemendError
        If no prunable layer runs, a weight is lazy or not finite, the batch does not fit the
        model, holds labels, or a pattern means no layer.

    Warns
    -----
    SparsemendWarning
        If matrices are left out: says which and why.
    """
    chosen = LayerFilter.of(include, exclude, pattern)
    if batch is not None:
        check_unlabelled(batch, "batch")
    return chosen.apply(find_layers(model, batch, more, tied=EMBEDDING in chosen.include))
