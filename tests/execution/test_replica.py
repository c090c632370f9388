"""Replicas keep their own attributes and share everything that is learnt."""

import torch
from torch import nn

from sparsemend.execution.replica import replica


class Stashing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)
        self.kept, self.again = [], self.first
        self.table = {"calls": 0}

    def forward(self, x):
        self.skip = self.norm(self.first(x)).relu()
        self.kept.append(self.skip)
        self.table["calls"] += 1
        return self.second(self.skip) + self.skip


def test_the_same_function_on_the_same_parameters():
    model, x = Stashing().eval(), torch.randn(5, 3)
    twin = replica(model)
    assert type(twin) is Stashing
    assert twin.first is twin.again
    assert twin.first is not model.first
    assert [id(p) for p in twin.parameters()] == [id(p) for p in model.parameters()]
    assert [id(b) for b in twin.buffers()] == [id(b) for b in model.buffers()]
    assert torch.equal(twin(x), model(x))


def test_what_a_pass_keeps_is_its_own():
    model = Stashing().eval()
    before = set(model.__dict__)
    one, other = replica(model), replica(model)
    one(torch.zeros(2, 3))
    other(torch.ones(3, 3))
    assert (len(one.skip), len(other.skip)) == (2, 3)
    assert (len(one.kept), len(other.kept), len(model.kept)) == (1, 1, 0)
    assert model.table == {"calls": 0}
    assert set(model.__dict__) == before


def test_parts_that_the_network_gets_later_are_seen():
    model = nn.Sequential(nn.Linear(3, 2, bias=False))
    twin, x, seen = replica(model), torch.randn(4, 3), []
    model[0].register_parameter("bias", nn.Parameter(torch.ones(2)))
    model[0].register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    assert torch.equal(twin(x), model(x))
    assert seen == [4, 4]
