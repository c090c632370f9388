"""Where a network's parameters are used while it runs: which are multiplied with, and how else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from sparsemend.layers.kinds import Call, kind_of, read_call
from sparsemend.layers.operand import Operand, Operands
from sparsemend.layers.overloads import is_foreign, name_of

# Operations in whose names one of these stands multiply with matrices, also where no kind of layer
# reads them; but attention, whose own operands are no weights.
_MULTIPLYING = re.compile(
    r"mm|mv|matmul|dot|einsum|linear|conv|lstm|gru|rnn|inner|outer|ger|cdist|kron"
)
_ATTENDING = re.compile(r"attention|comm")
_LOOKUPS = ("embedding", "embedding_bag")
# Those that are, or that choose matrices of a stack.
_CHOICES = ("index_select", "gather", "take", "take_along_dim", "index")


@dataclass
class Site:
    """A weight that operations of a kind of layer multiply with.

    Attributes
    ----------
    name
        Of the layer.
    weight
        The operand.
    geometry
        Of its first call.
    biases
        What is added behind it, each once.
    calls
        How often it runs in a forward pass, at most.
    takes_bias
        Whether it always runs in a module that adds the bias that it holds, if it holds one.
    """

    name: str
    weight: Operand
    geometry: Any
    biases: list[Operand] = field(default_factory=list)
    calls: int = 1
    takes_bias: bool = True


class Uses:
    """Notes what operations do with the parameters of a model.

    Attributes
    ----------
    sites
        Weights of layers, in the order of their first call.
    looked_up
        Parameters that an embedding reads rows of.
    computed
        Parameters from which an operand is computed that a layer would multiply with.
    read_differently
        Parameters that operations of different kinds, or with other groups, multiply with.
    inputs
        Parameters that are a layer's input, or that it is computed from: learned tokens.
    stale
        Parameters that the network multiplied with when it first ran, but not when it ran again.
    otherwise
        Parameter → the first other operation that it takes part in with a value of the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._operands = Operands(model)
        self._parameters = dict(model.named_parameters())
        self._derived: Any = WeakTensorKeyDictionary()  # tensor → parameters it is computed from
        self._mixed: Any = WeakTensorKeyDictionary()  # the same, with values of the network too
        self._chosen: Any = WeakTensorKeyDictionary()  # matrices → the stacks that they are of
        self.sites: dict[Operand, Site] = {}
        self.looked_up: set[str] = set()
        self.computed: set[str] = set()
        self.read_differently: set[str] = set()
        self.inputs: set[str] = set()
        self.stale: set[str] = set()
        self.otherwise: dict[str, str] = {}

    def operand(self, tensor: Tensor) -> Operand | None:
        """Which parameter a tensor is, or is a view of; None for what was computed."""
        return self._operands.find(tensor)

    def is_parameter(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter, or a view of one."""
        return self.operand(tensor) is not None

    def site(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        module: nn.Module | None = None,
    ) -> Site | None:
        """The site of an operation that multiplies with a parameter; None for any other.

        Parameters
        ----------
        func, args, kwargs
            What is called.
        module
            The layer in whose own forward pass that happens, if it is one.
        """
        call = read_call(func, args, kwargs)
        if call is None:
            return None
        operand = self._operands.find(call.weight)
        self.inputs |= self._origins(call.x)
        if operand is None:
            self.computed |= self._origins(call.weight) | self._mixed.get(call.weight, set())
            return None
        if operand not in self.sites:
            self.sites[operand] = Site(self._name(operand), operand, call.geometry)
        found = self.sites[operand]
        if _reading(call.geometry) != _reading(found.geometry):
            self.read_differently.add(operand.parameter)
        self._note_bias(found, call)
        found.takes_bias &= getattr(module, "weight", None) is call.weight
        return found

    def count(self, known: Sequence[Operand], calls: Mapping[Operand, int]) -> None:
        """Note how often sites were called in a run, and put those that are new in their places.

        Parameters
        ----------
        known
            The sites before the run, in order.
        calls
            Those that ran, in the order of their first call → how often.
        """
        order, place = list(known), 0
        for operand, times in calls.items():
            if operand in order:
                place = order.index(operand) + 1
            else:
                order.insert(place, operand)
                place += 1
            self.sites[operand].calls = max(self.sites[operand].calls, times)
        self.sites = {operand: self.sites[operand] for operand in order}

    def note(
        self,
        func: Callable[..., Any],
        args: Any,
        kwargs: Any,
        output: object,
        *,
        active: bool,
        where: str = "",
    ) -> None:
        """Note any other operation.

        Parameters
        ----------
        func, args, kwargs, output
            What was called, and what came of it.
        active
            Whether a value of the network takes part in it.
        where
            What is said behind its name.
        """
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):
            return  # it asked for a shape, or the like
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        origins = {name for leaf in given for name in self._origins(leaf)}
        mixed = {name for leaf in given for name in self._mixed.get(leaf, ())}
        if not origins | mixed:
            return
        name = name_of(func) + where
        chosen = name in _CHOICES or (name == "__getitem__" and _by_tensor(args))
        if name in _LOOKUPS or chosen:
            tables = {o.parameter for o in map(self._operands.find, given) if o is not None}
            tables = {name for name in tables if self._parameters[name].dim() < 3}
            self.looked_up |= tables if chosen else origins
        elif active:
            for origin in origins:
                self.otherwise.setdefault(origin, name)
        if active and multiplies(name):
            for leaf in given:
                operand = self._operands.find(leaf)
                if operand is not None:
                    self.otherwise[operand.parameter] = name
                self.computed |= self._chosen.get(leaf, set())
            return
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and self._operands.find(leaf) is None:
                if not active:
                    self._derived[leaf] = origins
                self._mixed[leaf] = origins | mixed
                if chosen:
                    self._chosen[leaf] = origins - self.looked_up

    def _origins(self, tensor: Tensor) -> set[str]:
        operand = self._operands.find(tensor)
        if operand is not None:
            return {operand.parameter}
        derived: set[str] = self._derived.get(tensor, set())
        return derived

    def _note_bias(self, site: Site, call: Call) -> None:
        bias = None if call.bias is None else self._operands.find(call.bias)
        if bias is not None and bias not in site.biases:
            site.biases.append(bias)

    def _name(self, operand: Operand) -> str:
        """The module's path for a whole ``weight``; else the parameter and which part of it."""
        parameter = self._parameters[operand.parameter]
        size = math.prod(operand.shape)
        if size == parameter.numel():
            path, _, last = operand.parameter.rpartition(".")
            return path if last == "weight" else operand.parameter
        row, where = parameter[0].numel(), operand.subscript()
        start, rest = divmod(operand.offset, max(1, parameter.stride(0)))
        if where is None and not rest and size % row == 0:
            where = f"{start}:{start + size // row}"
        return f"{operand.parameter}[{where or f'{operand.offset}+{size}'}]"


def _reading(geometry: Any) -> tuple[str, int, int]:
    """What must agree between the calls of one layer: its weight is one and the same matrix."""
    kind = kind_of(geometry)
    return kind.name_of(geometry), kind.rows(geometry), kind.groups(geometry)


def _by_tensor(args: tuple[Any, ...]) -> bool:
    """Whether something is indexed by tensors, which are not known before the network runs."""
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(args[1:]))


def multiplies(operation: str) -> bool:
    """Whether an operation of this name multiplies with matrices."""
    known = bool(_MULTIPLYING.search(operation)) and not _ATTENDING.search(operation)
    return known or is_foreign(operation)
