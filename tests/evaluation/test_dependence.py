"""A network whose output is the same for every input is named as one, with the layers at fault."""

import copy
import warnings

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.errors import SparsemendWarning
from sparsemend.evaluation import signal_ends


def network():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).eval()


X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))


def without(dense, *names):
    sparse = copy.deepcopy(dense)
    with torch.no_grad():
        for name in names:
            sparse.get_submodule(name).weight.zero_()
    return sparse


@pytest.mark.parametrize("names", [("0",), ("2",), ("4",)])
def test_the_layer_at_which_it_ends_is_named(names):
    dense = network()
    layers = sm.discover(dense, X)
    assert signal_ends(dense, without(dense, *names), layers, X) == names
    assert signal_ends(dense, dense, layers, X) == ()
    assert signal_ends(dense, without(dense, *names, "4"), layers, X) == names[:1]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x + self.branch(x))


def test_a_branch_alone_may_be_dead():
    dense = Residual().eval()
    layers = sm.discover(dense, X)
    assert signal_ends(dense, without(dense, "branch"), layers, X) == ()
    assert signal_ends(dense, without(dense, "head"), layers, X) == ("head",)


def test_one_input_does_not_tell():
    dense = network()
    assert signal_ends(dense, without(dense, "0"), sm.discover(dense, X), X[:1]) == ()


def test_compress_says_so():
    dense = network()
    with torch.no_grad():  # one weight is left, of a unit that is always off
        dense[0].weight[0, 0], dense[0].bias[0] = 100.0, -1e4
    allocation = sm.Allocation({"0": 1, "2": 8, "4": 8}, {"0": 48, "2": 64, "4": 24}, "mine")
    with pytest.warns(SparsemendWarning, match="does not depend on its input any more; .* ends at"):
        result = sm.compress(dense, X, allocation.sparsity, allocation, repair="none")
    assert result.signal_ends == ("2",)
    assert "THE OUTPUT DOES NOT DEPEND ON THE INPUT" in str(result)
    assert result.to_dict()["signal_ends"] == ["2"]
    assert any("the signal ends at 2" in sentence for sentence in sm.report(result).summary)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sm.compress(network(), X, 0.3, "uniform", repair="none").signal_ends == ()
