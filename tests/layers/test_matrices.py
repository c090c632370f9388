"""Weights, inputs and outputs as matrices: what does not depend on the kind."""

import pytest
import torch
from torch import nn

from sparsemend.errors import SparsemendError
from sparsemend.layers import LayerKind, unfold


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), (7, 4, 6, 6)),
        (nn.ConvTranspose1d(4, 6, 3, stride=2), (7, 4, 5)),
        (nn.Linear(4, 6), (7, 5, 4)),
    ],
)
def test_chunks_are_bounded_and_hold_every_position_once(monkeypatch, module, shape):
    x = torch.randn(shape)
    whole = torch.cat(list(unfold(module, x)), dim=1)
    limit = whole.numel() // 3
    monkeypatch.setattr(LayerKind, "chunk_elements", limit)
    chunks = list(unfold(module, x))
    assert len(chunks) >= 3
    assert all(chunk.numel() <= limit * 1.5 for chunk in chunks)
    assert torch.equal(torch.cat(chunks, dim=1), whole)


def test_other_modules_are_refused():
    with pytest.raises(SparsemendError) as caught:
        next(unfold(nn.BatchNorm2d(3), torch.ones(1, 3, 2, 2)))
    assert str(caught.value) == "cannot unfold the input of this module: got 'BatchNorm2d'"
