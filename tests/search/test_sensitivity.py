import copy

import pytest
import torch
from tests.repairs.networks import conv_bn, images, perceptron, same_state
from torch import nn

from sparsemend.layers import Call, channel_last, channel_shape, discover
from sparsemend.search.sensitivity import NOISE, _disturbing, sensitivities


def hooks(model):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def measure(model, batches, **options):
    return sensitivities(model, batches, discover(model, batches[0]), **options)


@pytest.mark.parametrize("make", [conv_bn, perceptron])
def test_every_layer_has_one_and_the_model_is_unchanged(make):
    model = make().train()
    model.get_submodule("1").eval()
    batches = [images()] if make is conv_bn else [torch.randn(40, 6)]
    before, flags = copy.deepcopy(model), [m.training for m in model.modules()]
    state = torch.get_rng_state()
    found = measure(model, batches)
    assert list(found) == list(discover(model, batches[0]).names)
    assert all(value > 0 for value in found.values())
    assert same_state(model, before)
    assert [m.training for m in model.modules()] == flags
    assert not any(hooks(model))
    assert torch.equal(torch.get_rng_state(), state)
    assert measure(model, batches) == found
    assert measure(model, batches, seed=1) != found


class Ignored(nn.Module):
    """The output does not depend on the first layer, and on the second only a little."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.unheard, self.soft, self.loud = (nn.Linear(6, 5) for _ in range(3))

    def forward(self, x):
        return 0 * self.unheard(x) + 0.01 * self.soft(x) + self.loud(x)


def test_a_layer_that_does_not_matter_has_none():
    found = measure(Ignored(), [torch.randn(50, 6)])
    assert found["unheard"] == 0
    assert 0 < found["soft"] < 1e-2 * found["loud"]


def test_sensitivity_is_per_variance_of_noise():
    model, batches = Ignored(), [torch.randn(400, 6)]
    small, large = (measure(model, batches, noise=noise) for noise in (0.01, 0.04))
    assert small["soft"] == pytest.approx(large["soft"], rel=0.2)


CASES = {
    "linear": (nn.Linear(4, 3), (5000, 4)),
    "tokens": (nn.Linear(4, 3), (200, 25, 4)),
    "conv1d": (nn.Conv1d(2, 3, 3), (500, 2, 12)),
    "conv2d": (nn.Conv2d(2, 3, 3), (200, 2, 8, 8)),
    "transposed": (nn.ConvTranspose2d(2, 3, 3), (200, 2, 4, 4)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_noise_keeps_mean_and_variance_of_every_channel(case, dtype):
    torch.manual_seed(0)
    module, shape = CASES[case]
    x = torch.randn(shape) + 1
    layer = discover(module, x)[0]
    with torch.no_grad():
        z = module(x).to(dtype)
    disturb = _disturbing(0.3, torch.Generator().manual_seed(0))
    noisy = disturb(layer, Call(module, x, module.weight, module.bias), z)
    assert (noisy.shape, noisy.dtype) == (z.shape, dtype)
    rows = [channel_last(module, t).double() for t in (z, noisy)]
    for ours, theirs in zip(torch.var_mean(rows[0], 0), torch.var_mean(rows[1], 0), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.08, atol=0.08)
    # The noise has the share of the variance that was asked for.
    centred = [r - r.mean(dim=0) for r in rows]
    overlap = (centred[0] * centred[1]).mean(dim=0) / centred[0].square().mean(dim=0)
    torch.testing.assert_close(overlap, torch.full_like(overlap, 0.7**0.5), rtol=0.08, atol=0)
    assert channel_shape(layer)[0] == -1


def test_a_constant_channel_stays_as_it_is():
    module = nn.Linear(4, 2)
    nn.init.zeros_(module.weight)
    x = torch.randn(9, 4)
    z = module(x).detach()
    disturb = _disturbing(0.3, torch.Generator())
    called = Call(module, x, module.weight, module.bias)
    torch.testing.assert_close(disturb(discover(module, x)[0], called, z), z)


def test_the_order_of_batches_hardly_matters():
    model, batches = conv_bn(), [images(60, seed) for seed in range(3)]
    one, other = measure(model, batches), measure(model, batches[::-1])
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert other[name] == pytest.approx(value, rel=0.25)


def test_noise_is_there_wherever_a_tied_layer_runs():
    class Tied(nn.Module):
        def __init__(self, twice):
            super().__init__()
            torch.manual_seed(0)
            self.head, self.a, self.b = nn.Linear(6, 5), nn.Linear(6, 6), nn.Linear(6, 6)
            self.b.weight = self.a.weight
            self.twice = twice

        def forward(self, x):
            x = torch.tanh(self.a(x))
            # The other layer runs, too, but is heard only here.
            again = torch.tanh(self.b(x))
            return self.head(x.detach() * 0 + again if self.twice else x + 0 * again)

    x = [torch.randn(80, 6)]
    layers = discover(Tied(True), x[0])
    assert layers["a"].aliases == ("b",)
    # Heard only behind the alias: the noise of both runs is in the output.
    assert sensitivities(Tied(True), x, layers)["a"] > 0
    assert sensitivities(Tied(False), x, layers)["a"] > 0


def test_noise_is_a_small_share():
    assert 0 < NOISE < 0.5
