import pytest

from sparsemend.allocation import RULES, allocate_layers
from sparsemend.errors import SparsemendError

from .networks import cifar_resnet18, make_layers, make_problem

uniform_plus = RULES["uniform+"].counts


def test_first_convolution_is_dense_and_last_layer_a_fifth():
    layers = cifar_resnet18()
    allocation = allocate_layers(layers, {}, 0.95, "uniform+")
    assert allocation["conv1"] == 1728
    assert allocation["fc"] == 10240
    others = [d for name, d in allocation.densities.items() if name not in ("conv1", "fc")]
    assert max(others) - min(others) < 1e-3
    assert 0.049 < max(others) < 0.05


def test_last_layer_follows_the_others_where_they_are_denser():
    densities = allocate_layers(cifar_resnet18(), {}, 0.5, "uniform+").densities
    assert densities["fc"] == pytest.approx(densities["layer4.1.conv2"], abs=1e-4)


def test_a_fifth_is_rounded_up():
    assert uniform_plus(make_problem(make_layers([(1, 100), (1, 11)]), 10)) == (7, 3)


def test_only_a_convolution_is_dense():
    layers = make_layers([(10, 10), (10, 10, 3), (10, 10)])
    assert uniform_plus(make_problem(layers, 330)) == (10, 300, 20)


def test_infeasible_budget_names_the_largest_sparsity():
    layers = make_layers([(4, 5, 5), (10, 10), (10, 10)])  # needs 100 + 1 + 20 of 300
    with pytest.raises(SparsemendError) as caught:
        allocate_layers(layers, {}, 0.9, "uniform+")
    assert str(caught.value) == (
        "no allocation over 3 layers keeps this number of weights: got 30; "
        "allowed: 121 to 300 of 300 weights; the largest feasible sparsity is 0.596666"
    )
    assert allocate_layers(layers, {}, 0.596666, "uniform+").kept == 121
