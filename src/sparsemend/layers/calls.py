"""Following a network's layers while it runs: every operation that multiplies with their weights.

A layer is known by the memory of its weight, so that it makes no difference which module, function
or patched method runs the operation, and a copy of a network that runs the original's layers is
found out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sparsemend.layers.access import layer_biases, layer_weight
from sparsemend.layers.copies import Copies
from sparsemend.layers.kinds import Call, kind_named, read_call
from sparsemend.layers.layer import Layer
from sparsemend.layers.opened import open_operation
from sparsemend.layers.operand import key_of
from sparsemend.layers.overloads import public, transformed

Before = Callable[[Layer, Call], None]
After = Callable[[Layer, Call, Tensor], Tensor]


class LayerCalls(TorchFunctionMode):
    """Sees the calls of a model's layers, within ``with``.

    Parameters
    ----------
    model
        The network that runs.
    layers
        Its layers, whether they were found in it or in a network that it is a copy of.
    before
        Called before a layer runs; it may change the layer's weight, and give it a bias.
    after
        Called with the layer's output; what it returns takes the output's place.
    padding
        Positions [N, T] of the inputs that hold data: ``before`` sees these alone, as [positions,
        features], where a layer's inputs are [N, T, features].
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[Layer],
        *,
        before: Before | None = None,
        after: After | None = None,
        padding: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.padding = padding
        self._model, self._before, self._after = model, before, after
        self._layers = {key_of(layer_weight(model, layer)): layer for layer in layers}
        self._copies = Copies()
        self._memory = {key[0] for key in self._layers}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        func, kwargs = public(func), kwargs or {}
        if transformed():
            return func(*args, **kwargs)
        call = read_call(func, *self._copies.originals(args, kwargs))
        instead = None
        if call is None or not self._is_weight(call.weight):
            instead = open_operation(func, args, kwargs, self._is_weight)
        if instead is not None:
            with self:
                return instead(*args, **kwargs)
        layer = None if call is None else self._layers.get(key_of(call.weight))
        if call is None or layer is None:
            output = func(*args, **kwargs)
            self._copies.note(func, args, kwargs, output, self._in_memory)
            return output
        output = self._output(layer, call, func, args, kwargs)
        return output if self._after is None else self._after(layer, call, output)

    def _place_bias(self, layer: Layer, call: Call) -> None:
        """Say in the geometry which of several biases this call adds."""
        if call.bias is not None and len(layer.biases) > 1:
            keys = [key_of(bias) for bias in layer_biases(self._model, layer)]
            if key_of(call.bias) in keys:
                call.geometry.which_bias = keys.index(key_of(call.bias))

    def _seen(self, call: Call) -> Call:
        """The call without padding, in the type of the weight where a cast would come first."""
        mask, x = self.padding, call.x
        if mask is not None and x.dim() == 3 and x.shape[:2] == mask.shape:
            x = x[mask.to(x.device)]
        # Mixed precision: weights are cast where the operation runs, so that they look wider.
        x = x.to(call.weight.dtype)
        return call if x is call.x else replace(call, x=x)

    def _in_memory(self, tensor: Tensor) -> bool:
        return key_of(tensor)[0] in self._memory

    def _is_weight(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in the memory of a layer's weight, or is a copy of such a one."""
        return self._in_memory(self._copies.original(tensor))

    def _output(
        self, layer: Layer, call: Call, func: Callable[..., Any], args: Any, kwargs: Any
    ) -> Tensor:
        if self._before is not None:
            self._place_bias(layer, call)
            without = call.takes_bias and call.bias is None
            without = without and not layer_biases(self._model, layer)
            self._before(layer, self._seen(call))
            given = layer_biases(self._model, layer) if without else []
            if given:  # just now, after the arguments were put together
                return kind_named(layer.kind).apply(call.geometry, call.x, call.weight, given[0])
            made = read_call(func, args, kwargs)
            if made is not None and key_of(made.weight) != key_of(call.weight):
                # A copy of the weight as it was before; x is in the type of that copy.
                weight = call.weight.to(made.weight.dtype)
                bias = None if call.bias is None else call.bias.to(weight.dtype)
                return kind_named(layer.kind).apply(call.geometry, made.x, weight, bias)
        output: Tensor = func(*args, **kwargs)
        return output
