"""One layer's fit: moments against a direct computation, closed forms, units of the rows."""

import dataclasses

import pytest
import torch
from torch import nn

from sparsemend.layers import discover, unfold, weight_matrix
from sparsemend.masks.gradual import GRADUAL
from sparsemend.repairs import FitSettings
from sparsemend.repairs import fit as fit_module
from sparsemend.repairs.fit import Choice, InputCovariance, LayerInputs, _row_units, fit_layer
from sparsemend.repairs.targets import Targets

MODULES = {
    "linear": (lambda: nn.Linear(7, 5), (20, 7)),
    "tokens": (lambda: nn.Linear(7, 5), (10, 3, 7)),
    "convolution": (lambda: nn.Conv2d(3, 6, 3, padding=1), (4, 3, 6, 5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False), (8, 4, 9, 9)),
    "depthwise": (lambda: nn.Conv1d(4, 8, 3, groups=4), (8, 4, 9)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 4, 4, 4)),
}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def case(kind, seed=0, batches=3):
    torch.manual_seed(seed)
    make, shape = MODULES[kind]
    module = make().double()
    inputs = [torch.randn(shape, dtype=torch.float64) + 0.4 for _ in range(batches)]
    return module, discover(nn.Sequential(module), inputs[0])[0], inputs


def dense_targets(module, inputs):
    with torch.no_grad():
        dense = [module(x) for x in inputs]
    one = torch.ones((), dtype=torch.float64)
    return Targets(dense, dense, None, one, one * 0, one.bool())


def columns_and_targets(module, layer, inputs, targets):
    """Unfolded inputs [groups, n, d] and targets [groups, n, rows]."""
    x = torch.cat([part for one in inputs for part in unfold(module, one)], dim=1)
    moved = targets if not layer.is_convolution else [t.movedim(1, -1) for t in targets]
    z = torch.cat([t.reshape(-1, layer.rows) for t in moved])
    return x, z.unflatten(1, (layer.groups, -1)).transpose(0, 1)


@pytest.mark.parametrize("kind", MODULES)
def test_moments_are_those_of_unfolded_inputs(kind):
    module, layer, inputs = case(kind)
    with torch.no_grad():
        targets = [torch.randn_like(module(x)) + 1 for x in inputs]
    covariance = InputCovariance(LayerInputs(nn.Sequential(module), layer, module, inputs), 0.0)
    cross, mean = covariance.cross(targets)
    deviation = covariance.deviation(targets, mean)
    x, z = columns_and_targets(module, layer, inputs, targets)
    mu = x.mean(dim=1, keepdim=True)
    scale = (x - mu).square().mean(dim=1).sqrt()
    normalised = (x - mu) / scale.unsqueeze(1)
    assert covariance.count == x.shape[1]
    torch.testing.assert_close(covariance.mean, mu.squeeze(1))
    torch.testing.assert_close(covariance.scale, scale)
    torch.testing.assert_close(covariance.matrix, normalised.mT @ normalised / x.shape[1])
    centred = z - z.mean(dim=1, keepdim=True)
    torch.testing.assert_close(cross, centred.mT @ normalised / x.shape[1])
    torch.testing.assert_close(mean, z.mean(dim=1).flatten())
    torch.testing.assert_close(deviation, centred.square().mean(dim=1).sqrt().flatten())


@pytest.mark.parametrize("kind", ["convolution", "grouped", "depthwise", "transposed"])
def test_the_pooled_term_is_that_of_means_over_positions(kind):
    module, layer, inputs = case(kind)
    with torch.no_grad():
        targets = [torch.randn_like(module(x)) + 1 for x in inputs]
    weight = 0.7
    covariance = InputCovariance(LayerInputs(nn.Sequential(module), layer, module, inputs), weight)
    cross, _ = covariance.cross(targets)
    x, z = columns_and_targets(module, layer, inputs, targets)
    x, z = x - x.mean(dim=1, keepdim=True), z - z.mean(dim=1, keepdim=True)
    count = sum(len(one) for one in inputs)
    # Inputs of one batch lie position by position behind each other.
    means, averages = (t.unflatten(1, (count, -1)).mean(dim=2) for t in (x, z))
    positions = x.shape[1] // count
    full = x.mT @ x / x.shape[1] + weight * positions * (means.mT @ means) / count
    scale = full.diagonal(dim1=1, dim2=2).sqrt()
    torch.testing.assert_close(covariance.scale, scale)
    torch.testing.assert_close(covariance.matrix, full / (scale.unsqueeze(2) * scale.unsqueeze(1)))
    both = z.mT @ x / x.shape[1] + weight * positions * (averages.mT @ means) / count
    torch.testing.assert_close(cross, both / scale.unsqueeze(1))


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("shifted", [True, False])
def test_changes_of_targets_are_told_from_some_of_many_inputs(shifted, batch, monkeypatch):
    monkeypatch.setattr(fit_module, "_ENOUGH_POSITIONS", 1)
    monkeypatch.setattr(fit_module, "_ENOUGH_INPUTS", 4)
    module, layer, inputs = case("convolution", batches=4)
    inputs = list(torch.cat(inputs).split(batch))
    given = LayerInputs(nn.Sequential(module), layer, module, inputs, shifted)
    covariance = InputCovariance(given, 0.0)
    seen = []
    for turn in range(4):
        parts = covariance.sample(turn, 4)
        chosen = [x[part] for x, part in zip(inputs, parts, strict=True)]
        seen.append(torch.cat(chosen))
        targets = [torch.randn_like(module(x)) for x in chosen]
        cross, mean = covariance.cross(targets, parts)
        x, z = columns_and_targets(module, layer, [torch.cat(chosen)], [torch.cat(targets)])
        z = z - z.mean(dim=1, keepdim=True) if shifted else z
        x = (x - covariance.mean.unsqueeze(1)) / covariance.scale.unsqueeze(1)
        torch.testing.assert_close(cross, z.mT @ x / x.shape[1])
        assert bool(mean.any()) == shifted
    # Every turn has a quarter, and all together everything, as the last has alone.
    assert [len(x) for x in seen] == [4] * 4
    assert torch.equal(torch.cat(seen).sort(dim=0).values, torch.cat(inputs).sort(dim=0).values)
    everything = [slice(0, None, 1)] * len(inputs)
    assert covariance.sample(4, 4) == everything
    # Where the mean over the positions of every input counts, all are needed.
    assert InputCovariance(given, 0.1).sample(2, 4) == everything


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("kind", MODULES)
def test_all_weights_kept_are_found_again(kind, pooled):
    module, layer, inputs = case(kind)
    targets = dense_targets(module, inputs)
    dense = weight_matrix(module.weight.detach().clone(), layer)
    bias = torch.zeros(layer.rows) if module.bias is None else module.bias.detach().clone()
    pooled = pooled and layer.is_convolution
    for mask in (torch.ones(dense.shape, dtype=torch.bool), None):
        given, choice = (
            LayerInputs(nn.Sequential(module), layer, module, inputs),
            Choice(layer.size, mask, GRADUAL),
        )
        fit, _ = fit_layer(given, targets, choice, FitSettings(ridge=1e-10), pooled=pooled)
        assert fit.mask.all()
        torch.testing.assert_close(fit.weight, dense, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(fit.shift, bias.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shifted", [True, False])
def test_layers_of_the_same_inputs_share_what_is_computed_of_them(shifted):
    torch.manual_seed(0)
    modules = [nn.Linear(7, 5).double(), nn.Linear(7, 4).double()]
    inputs = [torch.randn(20, 7, dtype=torch.float64) for _ in range(2)]
    inputs[0][:, 2], inputs[1][:, 2] = 0, 0
    inputs[0][3, 2] = 1e-3  # a column that too little speaks for
    first, second = (
        LayerInputs(module, discover(module, inputs[0])[0], module, list(inputs), shifted)
        for module in modules
    )
    targets, choice = dense_targets(modules[1], inputs), Choice(14, None, GRADUAL)
    start = modules[1].weight.clone()
    alone, own = fit_layer(second, targets, choice, FitSettings())
    modules[1].weight.copy_(start)
    known = InputCovariance(first, 0.0)
    assert known.held_back.any()
    assert known.serves(dataclasses.replace(second, inputs=[x.clone() for x in inputs]))
    inverses = known.inverses
    fit, shared = fit_layer(second, targets, choice, FitSettings(), known=known)
    assert shared.inverses is inverses
    assert shared.fixed is own.fixed or torch.equal(shared.fixed, own.fixed)
    assert torch.equal(fit.weight, alone.weight)
    assert torch.equal(fit.shift, alone.shift)
    assert torch.equal(fit.mask, alone.mask)


def test_other_inputs_are_not_those_of_the_layer_before():
    def given(inputs, module=None, shifted=True):
        module = module or nn.Linear(7, 5).double()
        layer = discover(nn.Sequential(module), inputs[0])[0]
        return LayerInputs(nn.Sequential(module), layer, module, inputs, shifted)

    x = torch.randn(20, 7, dtype=torch.float64)
    known = InputCovariance(given([x]), 0.0)
    assert known.serves(given([x]))
    assert not known.serves(given([x, x]))
    assert not known.serves(given([x + 1e-9]))
    assert not known.serves(given([x[:-1]]))
    assert not known.serves(given([x], shifted=False))
    assert not known.serves(given([torch.randn(20, 6).double()], nn.Linear(6, 5).double()))
    x += 1  # the network changes its activations in place, and goes on with them
    assert not known.serves(given([x]))
    with torch.inference_mode():
        uncounted = torch.randn(20, 7, dtype=torch.float64)
    assert not InputCovariance(given([uncounted]), 0.0).serves(given([uncounted]))


@pytest.mark.parametrize("kind", MODULES)
def test_a_fixed_mask_gets_the_least_squares_values(kind):
    module, layer, inputs = case(kind)
    targets = dense_targets(module, inputs)
    mask = torch.rand(layer.groups, layer.rows // layer.groups, layer.fan_in) < 0.4
    ridge = 1e-9
    fit, _ = fit_layer(
        LayerInputs(nn.Sequential(module), layer, module, inputs),
        targets,
        Choice(0, mask, GRADUAL),
        FitSettings(ridge=ridge),
    )
    x, z = columns_and_targets(module, layer, inputs, targets.dense)
    ones = torch.ones(*x.shape[:2], 1, dtype=x.dtype)
    shift = fit.shift.unflatten(0, (layer.groups, -1))
    assert not fit.weight[~mask].any()
    for g in range(layer.groups):
        for r in range(z.shape[2]):
            kept = mask[g, r]
            columns = torch.cat([x[g][:, kept], ones[g]], dim=1)
            expected = torch.linalg.lstsq(columns, z[g, :, r].unsqueeze(1)).solution.squeeze(1)
            torch.testing.assert_close(fit.weight[g, r, kept], expected[:-1], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(shift[g, r], expected[-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("kind", MODULES)
def test_free_masks_have_the_count(kind, relu):
    module, layer, inputs = case(kind)
    targets = dense_targets(module, inputs)
    start = module.weight.detach().clone()
    for kept in (0, 1, layer.size // 3, layer.size):
        with torch.no_grad():
            module.weight.copy_(start)
        fit, _ = fit_layer(
            LayerInputs(nn.Sequential(module), layer, module, inputs),
            targets,
            Choice(kept, None, GRADUAL),
            FitSettings(),
            relu=relu,
        )
        assert int(fit.mask.sum()) == kept
        assert fit.weight.isfinite().all()
        assert fit.shift.isfinite().all()
        assert not fit.weight[~fit.mask].any()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0, 1000.0])
def test_constant_inputs_have_no_variance_to_fit(value, relu):
    torch.manual_seed(0)
    module, inputs = nn.Linear(6, 4), [torch.full((8, 6), value)] * 2
    layer = discover(nn.Sequential(module), inputs[0])[0]
    with torch.no_grad():
        module.weight.copy_(torch.randn(4, 6).sign() * 1e3)
        module.bias.fill_(0.5)
        dense = [module(x) for x in inputs]
    one = torch.ones(())
    targets = Targets(dense, dense, None, one, one * 0, one.bool())
    fit, covariance = fit_layer(
        LayerInputs(nn.Sequential(module), layer, module, inputs),
        targets,
        Choice(9, None, GRADUAL),
        FitSettings(),
        relu=relu,
    )
    assert covariance.dead.all()
    assert int(fit.mask.sum()) == 9
    assert fit.weight.isfinite().all()
    outputs = fit.weight[0] @ inputs[0][0].to(fit.weight.dtype) + fit.shift
    found, wanted = (t.relu() if relu else t for t in (outputs, dense[0][0].to(outputs.dtype)))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-3)


def test_rows_compete_in_units_of_their_deviation():
    deviation, slope = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([[2.0], [1.0], [0.5]])
    assert torch.equal(_row_units(deviation, slope, None), deviation)
    same = _row_units(deviation, slope, torch.tensor([3.0, 3.0, 3.0]))
    expected = (deviation * slope.flatten()).sqrt() / slope.flatten()
    torch.testing.assert_close(same, expected)
    # An important row gets a smaller unit, so that more of its weights are kept.
    more = _row_units(deviation, slope, torch.tensor([300.0, 3.0, 3.0]))
    assert more[0] / more[1] < same[0] / same[1]


@pytest.mark.parametrize("importance", [None, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0])])
@pytest.mark.parametrize("deviation", [torch.zeros(3), torch.tensor([0.0, 0.0, 2.0])])
def test_units_are_positive_whatever_happens(deviation, importance):
    for slope in (torch.ones(1), torch.zeros(3), torch.tensor([1.0, 0.0, -1.0])):
        units = _row_units(deviation, slope, importance)
        assert units.shape == (3,)
        assert units.isfinite().all()
        assert (units > 0).all()
