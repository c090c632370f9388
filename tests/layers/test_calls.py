"""Calls of layers are seen wherever they happen, and work on them takes effect there."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sparsemend as sm
from sparsemend.calibration import gather_moments
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import evaluation_mode
from sparsemend.layers import LayerCalls, channel_last, discover, layer_biases, layer_weight

from . import operations as ops
from .operations import seeded

pytestmark = pytest.mark.filterwarnings("ignore::sparsemend.errors.SparsemendWarning")


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def routed(count, experts, seed=0):
    x = normal(count, 5, seed=seed)
    x[:, 0] = torch.arange(count) % experts + 0.5
    return x


# Network and batches.
NETWORKS = {
    "self-attention": (ops.SelfAttention, [normal(60, 5, 8), normal(60, 5, 8, seed=1)]),
    "cross-attention": (ops.CrossAttention, [normal(60, 5, 8), normal(60, 5, 8, seed=1)]),
    "GPT-2's Conv1D": (ops.GPT, [normal(60, 6), normal(60, 6, seed=1)]),
    "weights of modules that do not run": (ops.Functional, [normal(90, 6)]),
    "slices": (ops.Slices, [normal(60, 5), normal(60, 5, seed=1)]),
    "experts": (ops.Experts, [routed(60, 1), routed(90, 3, seed=1)]),
    "products": (ops.Product, [normal(90, 5)]),
    "a bias that is added apart": (
        lambda: nn.Sequential(ops.Handmade(5, 6), nn.ReLU(), ops.Handmade(6, 3)),
        [normal(60, 5), normal(60, 5, seed=1)],
    ),
    "padding before the call": (
        lambda: ops.convolutions(ops.Same, 0),
        [normal(20, 3, 8, 8), normal(20, 3, 8, 8, seed=1)],
    ),
    "a forward that was replaced on the class": (
        lambda: nn.Sequential(ops.Patched(5, 6), nn.ReLU(), ops.Patched(6, 3)),
        [normal(90, 5)],
    ),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    make, batches = NETWORKS[request.param]
    model = seeded(make)
    return model, batches, discover(model, batches[0], batches[1:])


def run(model, batches, layers, **options):
    """Outputs of the model while calls are watched."""
    with evaluation_mode(model), LayerCalls(model, layers, **options):
        return [model(x) for x in batches]


def outputs_of(model, batches, layers):
    """Layer → its outputs [positions, C]."""
    seen = {layer.name: [] for layer in layers}

    def note(layer, called, z):
        seen[layer.name].append(channel_last(called.geometry, z))
        return z

    run(model, batches, layers, after=note)
    return {name: torch.cat(parts) for name, parts in seen.items()}


# What is seen


def test_every_call_is_seen_before_and_after(case):
    model, batches, layers = case
    before, after = [], []

    def note(layer, called):
        before.append((layer.name, called))

    def note_output(layer, called, z):
        after.append((layer.name, called, z))
        return z

    watched = run(model, batches, layers, before=note, after=note_output)
    with torch.no_grad():
        for z, x in zip(watched, batches, strict=True):
            torch.testing.assert_close(z, model(x), rtol=1e-12, atol=1e-12)
    assert [(name, called) for name, called, _ in after] == before
    assert {name for name, _ in before} == set(layers.names)
    for name, called, z in after:
        # What a layer gives is its input times the weight that was found, and what is added.
        weight = layer_weight(model, layers[name])
        assert torch.equal(called.weight, weight)
        bias = called.bias
        if weight.dim() == 2:
            torch.testing.assert_close(z, F.linear(called.x, weight, bias))
        else:
            stride = called.geometry.stride
            torch.testing.assert_close(z, F.conv2d(called.x, weight, bias, stride))


def test_calls_come_in_order_and_once_for_each():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.w = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 4))

        def forward(self, x):
            return self.a(torch.tanh(self.a(x) @ self.w)) @ self.w

    model, names = seeded(Twice), []
    layers = discover(model, normal(3, 4))
    assert [x.calls for x in layers] == [2, 2]
    run(model, [normal(3, 4)], layers, before=lambda layer, _: names.append(layer.name))
    assert names == ["a", "w", "a", "w"]


def test_only_the_layers_that_are_given_are_seen(case):
    model, batches, layers = case
    names = set()
    run(model, batches, layers[-1:], before=lambda layer, _: names.add(layer.name))
    assert names == {layers[-1].name}


def test_outside_nothing_is_seen(case):
    model, batches, layers = case
    seen = []
    calls = LayerCalls(model, layers, before=lambda layer, _: seen.append(layer.name))
    with torch.no_grad():
        model(batches[0])
        with calls:
            pass
        model(batches[0])
    assert seen == []


def test_calls_of_a_copy_are_seen_with_the_layers_of_the_original(case):
    model, batches, layers = case
    twin = copy.deepcopy(model)
    seen = outputs_of(twin, batches, layers)
    for name, z in outputs_of(model, batches, layers).items():
        assert torch.equal(seen[name], z)
    # The original's calls are none of the copy's.
    names = []
    with LayerCalls(twin, layers, before=lambda layer, _: names.append(layer.name)):
        model(batches[0])
    assert names == []


def test_a_copy_that_runs_the_layers_of_the_original_is_not_seen():
    model = seeded(lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)))
    layers, original, names = discover(model, normal(4, 5)), model.forward, []
    model.forward = lambda x: original(x)  # a copy keeps this function, and with it the original
    twin = copy.deepcopy(model)
    with LayerCalls(model, layers, before=lambda layer, _: names.append(layer.name)):
        model(normal(4, 5))
    assert names == ["0", "2"]
    names.clear()
    with LayerCalls(twin, layers, before=lambda layer, _: names.append(layer.name)):
        twin(normal(4, 5))
    assert names == []


# What is changed


def test_what_after_returns_takes_the_place_of_the_output(case):
    model, batches, layers = case
    zeros = run(model, batches[:1], layers[-1:], after=lambda *args: torch.zeros_like(args[2]))
    expected = copy.deepcopy(model)
    layer_weight(expected, layers[-1]).zero_()
    for bias in layer_biases(expected, layers[-1]):
        if layers[-1].biases:  # else it is added behind the operation
            bias.zero_()
    with torch.no_grad():
        torch.testing.assert_close(zeros[0], expected(batches[0]))


def test_a_weight_that_before_changes_is_used_at_once(case):
    model, batches, layers = case
    expected = copy.deepcopy(model)
    for layer in layers:
        layer_weight(expected, layer).mul_(0.5)
    twin, done = copy.deepcopy(model), set()

    def halve(layer, _):
        if layer.name not in done:
            layer_weight(twin, layer).mul_(0.5)
            done.add(layer.name)

    halved = run(twin, batches, layers, before=halve)
    with torch.no_grad():
        for z, x in zip(halved, batches, strict=True):
            torch.testing.assert_close(z, expected(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(5, 4, bias=False),
        lambda: nn.Conv1d(5, 4, 1, bias=False),
        lambda: nn.ConvTranspose1d(5, 4, 1, bias=False),
    ],
)
def test_a_bias_that_before_gives_is_added_at_once(make):
    model = seeded(lambda: nn.Sequential(make()))
    x = normal(7, 5, 5)
    layers, given = discover(model, x), torch.randn(4, dtype=torch.float64)

    def give(*_):
        model[0].bias = nn.Parameter(given)

    (first,) = run(model, [x], layers, before=give)
    with torch.no_grad():
        torch.testing.assert_close(first, model(x))
    (again,) = run(model, [x], layers, before=lambda *_: None)
    assert torch.equal(first, again)


def test_a_bias_that_the_module_adds_is_not_added_twice():
    for make in (lambda: ops.Handmade(5, 4), lambda: ops.Patched(5, 4)):
        model = seeded(lambda make=make: nn.Sequential(make()))
        x = normal(7, 5)
        (z,) = run(model, [x], discover(model, x), before=lambda *_: None)
        with torch.no_grad():
            assert torch.equal(z, model(x))


# Work on what is seen


def moments_of(columns):
    return columns.mean(dim=0), torch.cov(columns.mT, correction=0), len(columns)


def direct(model, batches):
    """Layer → its input columns, by hand."""
    x = torch.cat(batches)
    flat = x.reshape(-1, x.shape[-1])
    if isinstance(model, ops.SelfAttention):
        return {"attention.in_proj_weight": flat}
    if isinstance(model, ops.CrossAttention):
        memory = torch.tanh(model.memory(flat))
        parts = {"[0:8]": flat, "[8:24]": memory}
        found = {f"attention.in_proj_weight{part}": columns for part, columns in parts.items()}
        return found | {"memory": flat}
    if isinstance(model, ops.GPT):
        return {"fc": flat, "proj": F.gelu(flat @ model.fc.weight + model.fc.bias)}
    if isinstance(model, ops.Functional):
        q, k, v = model.qkv(x).chunk(3, dim=-1)
        return {"qkv": x, "out": torch.softmax(q * k, dim=-1) * v}
    if isinstance(model, ops.Slices):
        z = x @ model.w.T + model.b
        gate = torch.sigmoid(z[:, :8])
        return {"w[0:8]": x, "w[8:12]": x, "head": gate[:, :4] * gate[:, 4:] + z[:, 8:]}
    if isinstance(model, ops.Experts):
        chosen = [x[x[:, 0].long() == e] for e in range(3)]
        hidden = torch.cat([part @ w.T for part, w in zip(chosen, model.experts, strict=True)])
        found = {f"experts[{e}]": part for e, part in enumerate(chosen)}
        return found | {"head": torch.relu(hidden)}
    if isinstance(model, ops.Product):
        return {"w": x, "turned": torch.relu(x @ model.w)}
    if x.dim() == 4:
        first = F.unfold(F.pad(x, (1, 1, 1, 1)), 3)
        hidden = torch.relu(F.conv2d(x, model[0].weight, model[0].bias, padding=1))
        second = F.unfold(F.pad(hidden, (0, 1, 0, 1)), 3, stride=2)
        return {"0": first.mT.flatten(0, 1), "2": second.mT.flatten(0, 1)}
    return {"0": x, "2": torch.relu(x @ model[0].weight.T + model[0].bias)}


def test_moments_are_those_of_a_direct_computation(case):
    model, batches, layers = case
    found = gather_moments(model, batches, layers).moments
    with torch.no_grad():
        expected = direct(model, batches)
    assert set(expected) <= set(layers.names)
    for name, columns in expected.items():
        mean, covariance, count = moments_of(columns)
        assert found[name].count == count
        torch.testing.assert_close(found[name].mean[0], mean, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found[name].covariance[0], covariance, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("operator", ["none", "variance"])
def test_a_diagnosis_is_what_a_forward_pass_measures(case, operator):
    model, batches, layers = case
    calibration = gather_moments(model, batches, layers)
    diagnosis = sm.diagnose(model, calibration, operator, densities=[0.4, 1.0])
    dense = outputs_of(model, batches, layers)
    for index, layer in enumerate(layers):
        twin = copy.deepcopy(model)
        # Of this layer alone, so that its inputs are the dense ones.
        weight = layer_weight(twin, layer)
        keep = round(0.4 * layer.size)
        smallest = weight.abs().flatten().argsort()[: layer.size - keep]
        mask = torch.ones(layer.size, dtype=torch.bool)
        mask[smallest] = False
        weight.mul_(mask.reshape(weight.shape))
        z, pruned = dense[layer.name], outputs_of(twin, batches, layers)[layer.name]
        variance = z.var(dim=0, correction=0)
        if operator == "variance":
            spread = pruned.var(dim=0, correction=0)
            scale = torch.where(spread > 0, variance / spread, 1.0).sqrt()
            pruned = z.mean(dim=0) + scale * (pruned - pruned.mean(dim=0))
        damage = float(((pruned - z).square().mean(dim=0) / variance)[variance > 0].mean())
        assert diagnosis.residual[index, 0] == pytest.approx(damage, rel=1e-3)


@pytest.mark.parametrize("repair", ["none", "variance", "affine", "reconstruct"])
def test_compression_keeps_exactly_what_was_allocated(case, repair):
    model, batches, layers = case
    state = copy.deepcopy(model.state_dict())
    result = sm.compress(
        model, batches, 0.5, "uniform", repair=repair, mask="magnitude", heldout=batches
    )
    assert set(result.allocation) == set(layers.names)
    assert abs(result.allocation.kept - 0.5 * layers.total) <= 0.5
    for layer in layers:
        kept = layer_weight(result.model, layer) != 0
        assert int(kept.sum()) == result.allocation[layer.name]
        assert torch.equal(kept, result.masks[layer.name])
    # No other value of a matrix became zero.
    zeros = sum(int((p == 0).sum()) for p in result.model.parameters() if p.dim() > 1)
    assert zeros == layers.total - result.allocation.kept
    assert all(value.isfinite().all() for value in result.model.state_dict().values())
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    fresh = copy.deepcopy(model)
    for path in result.added_biases:
        fresh.get_submodule(path).bias = nn.Parameter(torch.zeros(layers[path].rows))
    fresh.load_state_dict(result.model.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(fresh.double()(batches[-1]), result.model(batches[-1]))


def test_variance_repair_gives_every_layer_the_dense_variance(case):
    model, batches, layers = case
    options = {"mask": "magnitude", "heldout": batches}
    result = sm.compress(model, batches, 0.5, "uniform", repair="variance", **options)
    dense, ours = (outputs_of(m, batches, layers) for m in (model, result.model))
    for layer in layers:
        if not layer_biases(model, layer):  # nothing to bring the mean back with
            continue
        z, repaired = dense[layer.name], ours[layer.name]
        for channel in (repaired.var(dim=0) > 1e-6).nonzero().flatten().tolist():
            one, other = z[:, channel], repaired[:, channel]
            assert float(other.var()) == pytest.approx(float(one.var()), rel=1e-4)
        if layer.biases:  # else it is added behind the operation
            torch.testing.assert_close(repaired.mean(dim=0), z.mean(dim=0), rtol=1e-4, atol=1e-6)


def divergence(ours, theirs):
    """KL between outputs as class scores: what a final layer is reconstructed for."""
    ours, theirs = (F.log_softmax(z.flatten(0, -2), dim=1) for z in (ours, theirs))
    return float(F.kl_div(ours, theirs, reduction="sum", log_target=True))


def test_reconstruction_is_closer_than_no_repair(case):
    model, batches, _ = case
    options = {"mask": "magnitude", "heldout": batches}
    error = {}
    for repair in ("none", "reconstruct"):
        result = sm.compress(model, batches, 0.4, "uniform", repair=repair, **options)
        with torch.no_grad():
            pairs = [(result.model(x), model(x)) for x in batches]
        error[repair] = sum(divergence(*pair) for pair in pairs)
    assert error["reconstruct"] < error["none"]


def test_a_calibration_of_another_network_is_refused():
    model = seeded(ops.Slices)
    calibration = sm.calibrate(model, normal(30, 5))
    other = seeded(ops.Slices)
    other.w = nn.Parameter(torch.randn(20, 5, dtype=torch.float64))
    with pytest.raises(SparsemendError, match=r"another network: layer 'w\[0:8\]' has .*\(20, 5\)"):
        sm.diagnose(other, calibration)


def test_functions_of_pytorch_stay_as_they_are():
    """Also where forward passes that take turns are within them."""
    names = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    before = [getattr(F, name) for name in names]
    model, x = seeded(ops.SelfAttention), normal(32, 3, 8)
    sm.compress(model, list(x.split(8)), 0.5, "uniform", repair="reconstruct")
    assert [getattr(F, name) for name in names] == before
