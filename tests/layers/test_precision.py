import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sparsemend as sm
from sparsemend.layers import LayerCalls, discover


class Mixed(nn.Module):
    """Half of the layers run in another precision than their weights."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 20), nn.Linear(20, 20), nn.Linear(20, 5)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.b(self.a(x).relu()).relu()
        return F.linear(x.float(), self.c.weight.to(torch.float32), self.c.bias)


@pytest.mark.parametrize("repair", ["variance", "affine", "reconstruct"])
def test_networks_with_autocast_inside_are_covered_and_repaired(repair):
    torch.manual_seed(0)
    dense, x = Mixed().eval(), torch.randn(256, 6)
    result = sm.compress(dense, x, 0.5, "uniform", "magnitude", repair)
    assert result.coverage.share == 1
    zeros = sum(int((p == 0).sum()) for n, p in result.model.named_parameters() if "weight" in n)
    assert zeros == result.allocation.total - result.allocation.kept
    none = sm.compress(dense, x, 0.5, "uniform", "magnitude", "none")
    assert result.agreement.kl < none.agreement.kl


def test_inputs_are_seen_in_the_type_of_the_weight():
    network, types = Mixed().eval(), []
    layers = discover(network, torch.randn(2, 6))
    with torch.no_grad(), LayerCalls(network, layers, before=lambda _, c: types.append(c.x.dtype)):
        network(torch.randn(3, 6))
    assert types == [torch.float32] * 3
