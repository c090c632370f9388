import numpy as np
import pytest

from sparsemend import data, models
from sparsemend.calibration import DEFAULT_DENSITIES, calibrate
from sparsemend.diagnosis import diagnose
from sparsemend.layers import discover

from .direct import count_at, damage, largest, layer_inputs, outputs

REPAIRS = ("none", "mean", "variance", "layerwise", "shrinkage", "affine")


@pytest.fixture(scope="module")
def network(shared_data):
    pytest.importorskip("pyarrow")
    pytest.importorskip("PIL")
    weights = shared_data / "weights" / "cifar100_resnet20.safetensors"
    loaded = models.load("cifar_resnet20", weights)
    images = data.load(shared_data / "cifar100", mean=loaded.mean, std=loaded.std)
    return loaded.model, images.calibration(4)


@pytest.fixture(scope="module")
def pairs(network):
    """Layer name → dense outputs and those at every density."""
    model, x = network
    found = {}
    for name, inputs in layer_inputs(model, discover(model, x), x).items():
        module = model.get_submodule(name)
        weight = module.weight.detach().numpy()
        pruned = largest(weight, [count_at(d, weight.size) for d in DEFAULT_DENSITIES])
        dense = outputs(module, weight, inputs)
        found[name] = (dense, [outputs(module, w, inputs) for w in pruned])
    return found


@pytest.mark.parametrize("repair", REPAIRS)
def test_closed_form_is_what_a_forward_pass_measures(network, pairs, repair):
    model, x = network
    got = diagnose(model, calibrate(model, x.split(4)), repair)
    assert got.layers == tuple(pairs)
    for index, (z, pruned) in enumerate(pairs.values()):
        v = z.var(axis=0)
        raw = [(damage("none", z, p) / v).mean() for p in pruned]
        left = [(damage(repair, z, p) / v).mean() for p in pruned]
        np.testing.assert_allclose(got.raw[index], raw, rtol=1e-3, atol=1e-9)
        np.testing.assert_allclose(got.residual[index], left, rtol=1e-3, atol=1e-9)
