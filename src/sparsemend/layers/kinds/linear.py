"""Linear layers: a matrix on the last dimension."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsemend.layers.kinds.axis import Axis
from sparsemend.layers.kinds.call import Call, bare, bound
from sparsemend.layers.kinds.kind import LayerKind
from sparsemend.layers.kinds.shape import LayerShape

# x @ W, whose weight is W transposed.
_PRODUCTS = {
    torch.matmul, torch.mm, torch.linalg.matmul, Tensor.matmul, Tensor.mm, Tensor.__matmul__,
}  # fmt: skip
_SUMMED = {torch.addmm, Tensor.addmm}  # those with a bias; others are written out

_POINT = Axis(size=1, before=0, after=0, kernel=1, stride=1, dilation=1)


class Linear(LayerKind):
    """Inputs [..., features], outputs [..., channels]; the weight is stored [rows, features]."""

    modules: ClassVar[Mapping[type[nn.Module], str]] = {nn.Linear: "Linear"}
    label = "Linear"
    reads_as_convolution = True

    def read(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call | None:
        if operation is F.linear:
            given = bound(("input", "weight", "bias"), args, kwargs, bias=None)
            if given["weight"].dim() == 2:  # a vector gives one output without a dimension
                return _call(given["input"], given["weight"], given["bias"])
        if operation in _PRODUCTS:
            rest = [kwargs[name] for name in ("input", "other", "mat2") if name in kwargs]
            x, matrix = (*args, *rest)[:2]
            return _call(x, matrix.mT, None, takes_bias=False) if matrix.dim() == 2 else None
        if operation in _SUMMED and set(kwargs) <= {"input", "mat1", "mat2"}:
            given = bound(("input", "mat1", "mat2"), args, kwargs)
            if given["input"].shape != given["mat2"].shape[1:]:
                return None  # no bias, but another input
            return _call(given["mat1"], given["mat2"].mT, given["input"])
        return None

    def apply(self, module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def rows(self, module: Any) -> int:
        return int(module.out_features)

    def is_batched(self, module: Any, x: Tensor) -> bool:
        return x.dim() > 1

    def unfold(self, module: Any, x: Tensor) -> Iterator[Tensor]:
        flat = x.reshape(1, -1, module.in_features)
        yield from flat.split(max(1, self.chunk_elements // module.in_features), dim=1)

    def count_positions(self, module: Any, x: Tensor) -> int:
        return x.numel() // max(1, x.shape[-1])

    def mean_patch(self, module: Any, x: Tensor) -> Tensor:
        return x.reshape(-1, math.prod(x.shape[1:-1]), x.shape[-1]).mean(dim=1).unsqueeze(0)

    def column_sum(self, module: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.reshape(-1, x.shape[-1]).sum(dim=0, dtype=dtype).unsqueeze(0)

    def cross_sum(self, module: Any, layer: LayerShape, x: Tensor, targets: Tensor) -> Tensor:
        rows = targets.reshape(-1, targets.shape[-1])
        return (rows.mT @ x.reshape(-1, x.shape[-1])).unsqueeze(0)

    def as_convolution(self, module: Any, x: Tensor) -> tuple[tuple[Axis, ...], Tensor]:
        """Of one position with one tap."""
        return (_POINT,), x.reshape(-1, x.shape[-1], 1)


def _call(x: Tensor, weight: Tensor, bias: Tensor | None, *, takes_bias: bool = True) -> Call:
    rows, features = weight.shape
    geometry = bare(nn.Linear, in_features=features, out_features=rows)
    return Call(geometry, x, weight, bias, takes_bias)
