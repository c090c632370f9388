"""Copies of weights in another type or layout: zeros stay zeros, so that the weight is meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from sparsemend.layers.overloads import name_of

_COPYING = frozenset(
    ("to", "float", "half", "bfloat16", "double", "type", "type_as", "contiguous", "clone")
)
# Applied to a copy, these give a copy of the same view of the original; T and mT are "__get__".
_VIEWS = frozenset(
    ("__get__", "__getitem__", "t", "transpose", "permute", "view", "reshape", "squeeze", "detach")
)


class Copies:
    """Knows what copies were made of, as long as they live."""

    def __init__(self) -> None:
        self._of: Any = WeakTensorKeyDictionary()  # copy → a view of what it was made of

    def originals(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of an operation with originals in the place of copies."""
        if not len(self._of):
            return args, dict(kwargs)
        found: tuple[tuple[Any, ...], dict[str, Any]] = tree_map(self.original, (args, kwargs))
        return found

    def note(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        output: object,
        is_weight: Callable[[Tensor], bool],
    ) -> None:
        """Note an operation that may have copied a weight, or looked at a copy in another way.

        Parameters
        ----------
        func, args, kwargs, output
            What was called, and what came of it.
        is_weight
            Whether a tensor is a parameter, or a view of one.
        """
        name = name_of(func)
        if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            return
        if name in _COPYING and output is not args[0]:
            original = self.original(args[0])
            if is_weight(original) and not is_weight(output) and output.shape == original.shape:
                self._of[output] = original.detach()
        elif name in _VIEWS and args[0] in self._of:
            view = func(self.original(args[0]), *args[1:], **kwargs)
            if is_weight(view) and view.shape == output.shape:
                self._of[output] = view.detach()

    def original(self, value: Any) -> Any:
        """What a copy was made of, as it was looked at; anything else as it is."""
        return self._of.get(value, value) if isinstance(value, Tensor) else value
