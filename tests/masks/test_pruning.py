import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsemend.calibration import calibrate
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.layers import discover
from sparsemend.masks import apply_masks, choose_masks, find_masks, parameter_masks, prune

SIZES = {"0": 108, "2": 72, "4": 32, "6": 80}


def make_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, groups=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 2, 2, stride=2),
        nn.Flatten(),
        nn.Linear(2 * 4 * 4, 5, bias=False),
    )


@pytest.fixture(scope="module")
def network():
    net = make_network()
    net[6] = nn.Linear(16, 5, bias=False)
    net[5] = nn.Sequential(nn.AvgPool2d(2, stride=3), nn.AdaptiveAvgPool2d((2, 4)), nn.Flatten())
    return net


@pytest.fixture(scope="module")
def calibration(network):
    generator = torch.Generator().manual_seed(1)
    return calibrate(network, torch.randn(16, 3, 6, 6, generator=generator))


def kept_of(model):
    return {name: int((model.get_submodule(name).weight != 0).sum()) for name in SIZES}


@pytest.mark.parametrize("mask", ["magnitude", "activation"])
@settings(max_examples=20)
@given(st.data())
def test_counts_are_exact(network, calibration, mask, data):
    counts = {name: data.draw(st.integers(0, size)) for name, size in SIZES.items()}
    sparse = prune(network, counts, mask, calibration=calibration)
    assert kept_of(sparse) == counts
    for name in SIZES:
        dense, pruned = (m.get_submodule(name).weight for m in (network, sparse))
        assert torch.equal(pruned[pruned != 0], dense[pruned != 0])


def test_magnitude_needs_no_calibration(network, calibration):
    counts = {name: size // 3 for name, size in SIZES.items()}
    one, other = prune(network, counts), prune(network, counts, calibration=calibration)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_rows_of_every_kind_keep_as_many(network, calibration):
    masks = choose_masks(
        network, {n: size // 2 for n, size in SIZES.items()}, "activation", calibration=calibration
    )
    assert {name: tuple(mask.shape) for name, mask in masks.items()} == {
        layer.name: layer.shape for layer in calibration.layers
    }
    rows = {"0": masks["0"].flatten(1), "2": masks["2"].flatten(1), "6": masks["6"]}
    rows["4"] = masks["4"].transpose(0, 1).flatten(1)  # stored as [inputs, rows, *kernel]
    for name, mask in rows.items():
        counts = mask.sum(1)
        assert counts.max() - counts.min() <= 1, name
        assert counts.sum() == SIZES[name] // 2


def test_layers_that_are_not_named_stay_dense(network):
    assert kept_of(prune(network, {"2": 7})) == SIZES | {"2": 7}
    assert kept_of(prune(network, {})) == SIZES


def test_numpy_counts_will_do(network):
    assert kept_of(prune(network, {"2": np.int64(7)}))["2"] == 7


# The model


def test_the_model_is_unchanged(network, calibration):
    before = copy.deepcopy(network.state_dict())
    sparse = prune(network, {"0": 5, "6": 5}, "activation", calibration=calibration)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert sparse is not network
    assert type(sparse) is type(network)
    assert sparse.state_dict().keys() == before.keys()


def test_in_place():
    net = make_network()
    weight, bias = net[0].weight, net[0].bias.clone()
    assert prune(net, {"0": 5}, inplace=True) is net
    assert net[0].weight is weight
    assert weight.requires_grad
    assert (weight != 0).sum() == 5
    assert torch.equal(net[0].bias, bias)


@pytest.mark.parametrize("inplace", [False, True])
def test_pruned_weights_are_plain_zeros(inplace):
    net = prune(make_network(), {"0": 10, "2": 0}, inplace=inplace)
    for index in (0, 2):
        weight = net[index].weight
        assert not torch.signbit(weight[weight == 0]).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_kept(dtype):
    sparse = prune(make_network().to(dtype), {"0": 10})
    assert sparse[0].weight.dtype == dtype
    assert (sparse[0].weight != 0).sum() == 10


def test_tied_weights_are_pruned_once():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    sparse = prune(net, {"0": 3})
    assert sparse[0].weight is sparse[2].weight
    assert (sparse[2].weight != 0).sum() == 3


def test_pruning_further_is_nested(network):
    at_once = prune(network, {"0": 10})
    in_steps = prune(prune(network, {"0": 50}), {"0": 10})
    assert torch.equal(at_once[0].weight, in_steps[0].weight)


# Masks


def test_masks_are_found_in_the_zeros(network):
    counts = {name: size // 4 for name, size in SIZES.items()}
    masks = choose_masks(network, counts)
    sparse = prune(network, counts)
    for found in (find_masks(sparse), find_masks(sparse, discover(sparse))):
        assert list(found) == list(SIZES)
        assert all(torch.equal(found[name], mask) for name, mask in masks.items())
        assert all(mask.dtype == torch.bool for mask in found.values())
    assert all(mask.all() for mask in find_masks(network).values())


def test_masks_are_applied_in_place():
    net = make_network()
    mask = torch.zeros(4, 3, 3, 3, dtype=torch.bool)
    mask[1] = True
    before = net[0].weight.detach().clone()
    apply_masks(net, {"0": mask})
    assert torch.equal(net[0].weight, before * mask)


# What is refused


@pytest.mark.parametrize("count", [-1, 109, 2.5, 0.1, 1.0, "3", None])
def test_counts_that_do_not_fit(count):
    net = make_network()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(SparsemendError) as caught:
        prune(net, {"2": 3, "0": count}, inplace=True)
    assert str(caught.value) == (
        f"layer '0' cannot keep this many weights: got {count!r}; allowed: a whole number from 0 "
        "to 108"
    )
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_unknown_layers(network):
    with pytest.raises(SparsemendError) as caught:
        prune(network, {"0": 3, "fc": 3, "1": 3})
    assert str(caught.value) == (
        "the allocation names layers that the model does not have: got ['fc', '1']; allowed: "
        "0, 2, 4, 6"
    )


def test_unknown_mask(network):
    with pytest.raises(SparsemendError, match="unknown mask: got 'random'; allowed: magnitude, "):
        prune(network, {"0": 3}, "random")


def test_activation_needs_a_calibration(network):
    with pytest.raises(SparsemendError, match=r"mask 'activation' needs .*; pass calibration="):
        prune(network, {"0": 3}, "activation")


@pytest.mark.parametrize(
    "other", [nn.Sequential(nn.Conv2d(3, 5, 3)), nn.Sequential(nn.ReLU(), nn.Linear(3, 3))]
)
def test_a_calibration_of_another_network_is_refused(calibration, other):
    with pytest.raises(SparsemendError, match="the calibration is of another network: layer '0'"):
        prune(other, {"0": 3}, "activation", calibration=calibration)


class Turned(nn.Module):
    """Weights that are parts of parameters, or turned, beside plain ones."""

    def __init__(self):
        super().__init__()
        self.square = nn.Parameter(torch.randn(6, 6))
        self.packed = nn.Parameter(torch.randn(8, 6))
        self.plain = nn.Linear(4, 3)

    def forward(self, x):
        x = (x @ self.square).relu()
        return self.plain(nn.functional.linear(x, self.packed[:4]))


def test_masks_of_parameters_have_their_shapes():
    torch.manual_seed(0)
    dense, x = Turned(), torch.randn(9, 6)
    with pytest.warns(SparsemendWarning, match="packed"):  # whose other half is not used
        layers = discover(dense, x)
    sparse, counts = copy.deepcopy(dense), {layer.name: layer.size // 3 for layer in layers}
    apply_masks(sparse, choose_masks(dense, counts, layers=layers), layers)
    masks = parameter_masks(sparse, find_masks(sparse, layers), layers)
    assert set(masks) == {"square", "packed", "plain.weight"}
    for name, mask in masks.items():
        parameter = sparse.get_parameter(name)
        assert torch.equal(mask, parameter != 0)
        assert torch.equal(parameter, dense.get_parameter(name) * mask)
    assert masks["packed"][4:].all()
