"""What a packed file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparsemend.graphs import Graph

FORMAT = "sparsemend-packed"
VERSION = 1

DTYPES: Mapping[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
"""Types that values can be stored in, by name."""


@dataclass(frozen=True)
class Packed:
    """A network from a packed file.

    Attributes
    ----------
    graph
        What it computes, BatchNorms folded; None if the file has the weights alone.
    tensors
        Without a graph: the state dict, with the original keys.
    metadata
        Facts about it.
    """

    graph: Graph | None
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Tensor]:
        """Dense float32 tensors by key.

        Of a file without a graph those of the original network, for ``load_state_dict``. Of one
        with a graph ``<layer>.weight`` and ``<layer>.bias`` with the BatchNorms in them.
        """
        if self.graph is None:
            return dict(self.tensors)
        found: dict[str, Any] = {}
        for node in self.graph:
            for field_, tensor in node.operation.tensors().items():
                found[f"{node.name}.{field_}"] = tensor
        return found
