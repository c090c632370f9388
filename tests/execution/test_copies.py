"""A network that cannot be copied is refused by what prevents it."""

import pytest
import torch
from torch import nn

from sparsemend.errors import SparsemendError
from sparsemend.execution.copies import copied


def test_a_copy_is_a_network_of_its_own():
    model = nn.Sequential(nn.Linear(2, 3))
    twin = copied(model)
    assert torch.equal(twin[0].weight, model[0].weight)
    assert twin[0].weight is not model[0].weight


def test_what_prevents_a_copy_is_named():
    model = nn.Sequential(nn.Linear(2, 3))
    model[0].stream = iter_once = (i for i in range(3))
    with pytest.raises(SparsemendError, match="for attribute 'stream' of module '0': TypeError"):
        copied(model)
    assert model[0].stream is iter_once


def test_want_of_memory_is_passed_on():
    class Large(nn.Module):
        def __deepcopy__(self, memo):
            raise MemoryError

    with pytest.raises(MemoryError):
        copied(Large())
