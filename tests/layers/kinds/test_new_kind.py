"""A kind of layer that the library does not know: one class and one entry in the registry."""

import copy
from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.layers import Call, LayerKind, unfold
from sparsemend.layers.kinds import KINDS, bare

pytestmark = pytest.mark.filterwarnings("ignore:layers that got a bias")


def contract(x, weight):
    z = torch.conv_tbc(
        x.reshape(len(x), -1, x.shape[-1]), weight.T[None], x.new_zeros(len(weight)), 0
    )
    return z.reshape(*x.shape[:-1], -1)


class Contracting(nn.Module):
    """A matrix on twice the input; no subclass of any layer of PyTorch, nor called like one."""

    def __init__(self, features, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, features) / features**0.5)
        self.register_parameter("bias", None)

    def forward(self, x):
        z = contract(2 * x, self.weight)
        return z if self.bias is None else z + self.bias


class Contraction(LayerKind):
    """Reads ``torch.conv_tbc`` with one tap and without a bias."""

    modules: ClassVar[Mapping[type[nn.Module], str]] = {Contracting: "Contraction"}
    label = "Contraction"

    def read(self, operation, args, kwargs):
        if operation is not torch.conv_tbc or kwargs:
            return None
        x, weight = args[0], args[1][0].T
        return Call(bare(Contracting, channels=len(weight)), x, weight, None, takes_bias=False)

    def apply(self, module, x, weight, bias):  # noqa: ARG002
        z = contract(x, weight)
        return z if bias is None else z + bias

    def rows(self, module):
        return module.channels if hasattr(module, "channels") else len(module.weight)

    def unfold(self, module, x):  # noqa: ARG002
        yield x.reshape(1, -1, x.shape[-1])


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(KINDS, "contraction", Contraction())


def make_network(layer=Contracting):
    torch.manual_seed(0)
    net = nn.Sequential(layer(6, 12), nn.ReLU(), layer(12, 8), nn.ReLU(), nn.Linear(8, 5))
    return net.double().eval()


def make_twin(net):
    """The same function in linear layers alone."""
    twin = copy.deepcopy(net)
    for index in (0, 2):
        weight = 2 * net[index].weight.detach()
        twin[index] = nn.Linear(weight.shape[1], len(weight), bias=net[index].bias is not None)
        twin[index].weight = nn.Parameter(weight)
        if net[index].bias is not None:
            twin[index].bias = nn.Parameter(net[index].bias.detach().clone())
    return twin.eval()


def make_batches():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(96, 3, 6, generator=generator, dtype=torch.float64)
    return list((x @ torch.randn(6, 6, generator=generator).double() + 0.3).split(32))


def test_without_an_entry_it_is_no_layer(monkeypatch):
    monkeypatch.delitem(KINDS, "contraction")
    reason = "multiplied by conv_tbc, which no kind of layer reads"
    with pytest.raises(sm.SparsemendError, match=f"no prunable layer .*0.weight: {reason}"):
        sm.discover(nn.Sequential(Contracting(3, 3)), torch.ones(2, 1, 3))
    with pytest.warns(sm.SparsemendWarning, match=reason):
        layers = sm.discover(make_network(), make_batches()[0])
    assert layers.names == ("4",)
    assert (layers.coverage.covered, layers.coverage.matrix) == (40, 40 + 72 + 96)


def test_it_is_discovered_and_listed():
    layers = sm.discover(make_network(), make_batches()[0])
    assert [layer.kind for layer in layers] == ["Contraction", "Contraction", "Linear"]
    first = layers["0"]
    assert (first.rows, first.fan_in, first.groups, first.input_channels) == (12, 6, 1, 6)
    assert not first.is_convolution
    with pytest.raises(sm.SparsemendError, match="Linear or Contraction"):
        sm.discover(nn.ReLU())


def test_its_moments_are_those_of_twice_its_inputs():
    net, batches = make_network(), make_batches()
    found = sm.calibrate(net, batches, progress=False).moments
    inputs = 2 * torch.cat(batches).reshape(-1, 6)
    assert found["0"].count == len(inputs)
    torch.testing.assert_close(found["0"].mean[0], inputs.mean(dim=0), rtol=1e-12, atol=1e-12)
    covariance = torch.cov(inputs.T, correction=0)
    torch.testing.assert_close(found["0"].covariance[0], covariance, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("max_fan_in", [1, 4608])
def test_its_diagnosis_is_that_of_linear_layers(max_fan_in):
    net, batches = make_network(), make_batches()
    one, other = (
        sm.diagnose(m, sm.calibrate(m, batches, max_fan_in=max_fan_in, progress=False))
        for m in (net, make_twin(net))
    )
    torch.testing.assert_close(torch.tensor(one.raw), torch.tensor(other.raw))
    torch.testing.assert_close(torch.tensor(one.residual), torch.tensor(other.residual))


def prune(net):
    return sm.prune(net, {"0": 30, "2": 41, "4": 17})


def test_it_is_pruned_to_exact_counts():
    kept = {name: int(mask.sum()) for name, mask in sm.find_masks(prune(make_network())).items()}
    assert kept == {"0": 30, "2": 41, "4": 17}


def test_variance_repair_gives_its_channels_the_dense_mean_and_variance():
    net, batches = make_network(), make_batches()
    net[0].bias = nn.Parameter(torch.randn(12, dtype=torch.float64))
    pruned = prune(net)
    repaired = sm.repair(pruned, net, batches, "variance", new_biases=True, progress=False)
    x = torch.cat(batches).reshape(-1, 6)
    with torch.no_grad():
        dense, ours = net[0](x), repaired[0](x)
    torch.testing.assert_close(ours.mean(dim=0), dense.mean(dim=0), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(ours.var(dim=0), dense.var(dim=0), rtol=1e-8, atol=1e-8)
    assert torch.equal(repaired[0].weight != 0, pruned[0].weight != 0)


@pytest.mark.parametrize("repair", ["variance", "reconstruct"])
def test_it_is_repaired_as_linear_layers_are(repair):
    net, batches = make_network(), make_batches()
    pruned = prune(net)
    repaired = sm.repair(pruned, net, batches, repair, progress=False)
    twin = sm.repair(make_twin(pruned), make_twin(net), batches, repair, progress=False)
    x = torch.cat(batches)
    with torch.no_grad():
        torch.testing.assert_close(repaired(x), twin(x), rtol=1e-6, atol=1e-6)
        before, after = ((m(x) - net(x)).square().mean() for m in (pruned, repaired))
    assert after < before
    kept = {name: int(mask.sum()) for name, mask in sm.find_masks(repaired).items()}
    assert kept == {"0": 30, "2": 41, "4": 17}


@pytest.mark.filterwarnings("ignore:reconstruction leans")
def test_reconstruction_chooses_its_weights():
    net, batches = make_network(), make_batches()
    result = sm.compress(net, batches, 0.5, "uniform", repair="reconstruct", progress=False)
    assert result.mask == "gradual"
    for name, kept in result.allocation.items():
        assert int((result.model.get_submodule(name).weight != 0).sum()) == kept


def test_defaults_agree_with_a_direct_computation():
    module, kind = Contracting(6, 4).double(), KINDS["contraction"]
    x, targets = make_batches()[0], torch.randn(32, 3, 4, dtype=torch.float64)
    layers = sm.discover(nn.Sequential(module), x)
    called, (layer,) = layers.geometry("0"), layers
    flat = x.reshape(-1, 6)
    assert kind.count_positions(called, x) == len(flat)
    expected = targets.reshape(-1, 4).T @ flat
    torch.testing.assert_close(kind.cross_sum(called, layer, x, targets)[0], expected)
    torch.testing.assert_close(kind.column_sum(called, x, x.dtype)[0], flat.sum(dim=0))
    torch.testing.assert_close(kind.mean_patch(called, x)[0], x.mean(dim=1))
    assert torch.equal(kind.pad(called, x), x)
    assert kind.per_input(targets).shape == (96, 4, 1)
    (columns,) = unfold(called, x)
    assert torch.equal(kind.channel_last(called, module(x / 2)), columns[0] @ module.weight.T)
