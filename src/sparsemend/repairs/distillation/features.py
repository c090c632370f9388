"""Sums inside a network, where shortcuts join: what its blocks hand on, under any name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_SUMS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})
_TINY = 1e-12


class SeenSums(TorchFunctionMode):
    """Keeps every sum of two activations of one shape, within ``with``, in order.

    Attributes
    ----------
    found
        The sums, as the network goes on to use them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _SUMS and _is_join(args, output):
            self.found.append(output)
        return output


def _is_join(args: tuple[Any, ...], output: Any) -> bool:
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.dim() < 2:
        return False
    terms = args[:2]
    return len(terms) == 2 and all(
        isinstance(term, Tensor)
        and not isinstance(term, nn.Parameter)
        and term.shape == output.shape
        for term in terms
    )


def feature_error(
    dense: Sequence[Tensor], sparse: Sequence[Tensor], padding: Tensor | None
) -> Tensor | None:
    """Mean over all sums of E‖s' − s‖² over the variance of s; None where they do not match.

    Parameters
    ----------
    dense, sparse
        Sums of both networks.
    padding
        Positions [N, T] that hold data, where some do not.
    """
    if not dense or [s.shape for s in dense] != [s.shape for s in sparse]:
        return None
    total: Tensor | None = None
    for wanted, present in zip(dense, sparse, strict=True):
        s, ours = wanted.float(), present.float()
        if padding is not None and s.shape[:2] == padding.shape:
            s, ours = s[padding.to(s.device)], ours[padding.to(s.device)]
        error = (ours - s).square().mean() / s.var(correction=0).clamp(min=_TINY)
        total = error if total is None else total + error
    assert total is not None, "there is a sum"
    return total / len(dense)
