import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sparsemend as sm
from sparsemend.layers import LayerCalls, discover, layer_weight


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


class Cast(nn.Module):
    """A layer whose weight is cast by hand, wherever it is used."""

    def __init__(self, use):
        super().__init__()
        self.a, self.b = nn.Linear(6, 20), nn.Linear(20, 5)
        self.half()
        self.use = use

    def forward(self, x):
        x = self.use(x.double(), self.a).relu()
        return F.linear(x.float(), self.b.weight.float(), self.b.bias.float())


USES = {
    "linear": lambda x, a: F.linear(x, a.weight.double(), a.bias.double()),
    "type by name": lambda x, a: F.linear(x, a.weight.to(dtype=torch.float64)),
    "turned and copied": lambda x, a: x @ a.weight.t().contiguous().double(),
    "copied and turned": lambda x, a: x @ a.weight.to(x.dtype).T,
    "in part": lambda x, a: torch.cat(
        [F.linear(x, a.weight.double()[:8]), F.linear(x, a.weight[8:].double())], 1
    ),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("repair", ["variance", "reconstruct"])
def test_weights_that_are_cast_are_layers_all_the_same(use, repair):
    torch.manual_seed(0)
    dense, x = Cast(USES[use]).eval(), torch.randn(256, 6)
    result = sm.compress(dense, x, 0.5, "uniform", "magnitude", repair)
    assert result.coverage.share == 1
    zeros = sum(int((p == 0).sum()) for n, p in result.model.named_parameters() if "weight" in n)
    assert zeros == result.allocation.total - result.allocation.kept
    none = sm.compress(dense, x, 0.5, "uniform", "magnitude", "none")
    assert result.agreement.kl < none.agreement.kl


def test_a_cast_weight_that_changes_before_it_runs_runs_as_it_is_then():
    network, x = Cast(USES["linear"]).eval(), torch.randn(3, 6).half()
    layers = discover(network, x)

    def erase(layer, _):
        layer_weight(network, layer).zero_()

    with torch.no_grad(), LayerCalls(network, layers, before=erase):
        output = network(x)
    assert torch.equal(output, network.b.bias.float().expand(3, 5))


def test_what_is_computed_from_a_cast_weight_is_no_copy():
    network, x = Cast(lambda x, a: F.linear(x, a.weight.double() * 2)), torch.randn(3, 6)
    with pytest.warns(sm.SparsemendWarning, match="computed from it"):
        assert discover(network, x).names == ("b",)
