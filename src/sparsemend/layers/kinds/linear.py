"""Linear layers: a matrix on the last dimension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsemend.layers.kinds.axis import Axis
from sparsemend.layers.kinds.kind import LayerKind
from sparsemend.layers.kinds.shape import LayerShape

_POINT = Axis(size=1, before=0, after=0, kernel=1, stride=1, dilation=1)


class Linear(LayerKind):
    """Inputs [..., features], outputs [..., channels]; the weight is stored [rows, features]."""

    modules: ClassVar[Mapping[type[nn.Module], str]] = {nn.Linear: "Linear"}
    label = "Linear"
    reads_as_convolution = True

    def rows(self, module: Any) -> int:
        return int(module.out_features)

    def unfold(self, module: Any, x: Tensor) -> Iterator[Tensor]:
        flat = x.reshape(1, -1, module.in_features)
        yield from flat.split(max(1, self.chunk_elements // module.in_features), dim=1)

    def count_positions(self, module: Any, x: Tensor) -> int:
        return x.numel() // max(1, x.shape[-1])

    def column_sum(self, module: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.reshape(-1, x.shape[-1]).sum(dim=0, dtype=dtype).unsqueeze(0)

    def cross_sum(self, module: Any, layer: LayerShape, x: Tensor, targets: Tensor) -> Tensor:
        rows = targets.reshape(-1, targets.shape[-1])
        return (rows.mT @ x.reshape(-1, x.shape[-1])).unsqueeze(0)

    def as_convolution(self, module: Any, x: Tensor) -> tuple[tuple[Axis, ...], Tensor]:
        """Of one position with one tap."""
        return (_POINT,), x.reshape(-1, x.shape[-1], 1)
