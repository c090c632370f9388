import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.layers import discover

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Modules by name, and a forward pass over them."""

    def __init__(self, forward, **modules):
        super().__init__()
        self._forward = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args, **kwargs):
        return self._forward(self, *args, **kwargs)


def conv(inputs=3, outputs=4, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def norms(model, batch=IMAGES):
    return {layer.name: layer.norm for layer in discover(model, batch)}


def test_execution_order_is_not_registration_order():
    net = Net(
        lambda m, x: m.a(m.b(m.c(x)).mean((2, 3))), a=nn.Linear(4, 2), b=conv(4), c=conv(3, 4)
    )
    layers = discover(net, IMAGES)
    assert layers.names == ("c", "b", "a")
    assert [layer.order for layer in layers] == [0, 1, 2]
    assert discover(net).names == ("a", "b", "c")


def test_a_layer_is_described():
    net = nn.Sequential(nn.Conv2d(6, 4, (3, 5), groups=2), nn.ConvTranspose2d(4, 6, 2, groups=2))
    plain, transposed = discover(net, torch.randn(2, 6, 8, 8))
    assert (plain.kind, plain.shape, plain.groups) == ("Conv2d", (4, 3, 3, 5), 2)
    assert (plain.rows, plain.fan_in, plain.size) == (4, 45, 180)
    assert (transposed.kind, transposed.shape) == ("ConvTranspose2d", (4, 3, 2, 2))
    assert (transposed.rows, transposed.fan_in, transposed.size) == (6, 8, 48)


def test_layer_set_is_a_sequence_with_names():
    layers = discover(nn.Sequential(conv(), nn.BatchNorm2d(4), conv(4)), IMAGES)
    assert layers["2"] is layers[1] is layers[-1]
    assert list(layers[:1]) == [layers[0]]
    assert len(layers) == 2
    assert layers.total == sum(layer.size for layer in layers)
    for layer in layers:
        assert f"{layer.size}" in str(layers)
    with pytest.raises(SparsemendError, match=r"no prunable layer of this name: got '1'; .* 0, 2"):
        layers["1"]


# Which normalisation follows


@pytest.mark.parametrize(
    "between",
    [
        (),
        (nn.Identity(),),
        (nn.Dropout(0.5), nn.Dropout2d(0.1)),
        (nn.Flatten(), nn.Unflatten(1, (4, 8, 8))),
    ],
)
@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm([4, 8, 8])],
)
def test_norm_is_seen_through_modules_that_change_nothing(between, norm):
    net = nn.Sequential(conv(), *between, norm, nn.ReLU())
    assert norms(net) == {"0": str(len(between) + 1)}


def test_flattened_channels_match_a_norm_of_as_many():
    pooled = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.BatchNorm1d(4))
    assert norms(pooled) == {"0": "2"}
    # Here the norm has a channel per pixel, so that no channel of the layer is one of its own.
    spread = nn.Sequential(nn.Conv2d(3, 4, 7), nn.Flatten(), nn.BatchNorm1d(16))
    assert norms(spread) == {"0": None}


def test_norm_of_linear_layers():
    net = Net(
        lambda m, x: m.bn(m.fc(x).transpose(1, 2)).transpose(1, 2),
        fc=nn.Linear(3, 5),
        bn=nn.BatchNorm1d(5),
    )
    assert norms(net, torch.randn(2, 7, 3)) == {"fc": "bn"}
    assert norms(nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5)), torch.randn(2, 3)) == {"0": "1"}


def two_ways(forward):
    return Net(forward, a=conv(), b=conv(), bn=nn.BatchNorm2d(4), other=nn.BatchNorm2d(4))


def keep(m, x):
    m.kept = m.a(x)
    return m.bn(m.kept) + m.kept


def add_in_place(m, x):
    z = m.a(x)
    z += m.other(m.b(x))
    return m.bn(z)


def relu_in_place(m, x):
    return m.bn(torch.relu_(m.a(x))) + m.other(m.b(x))


def scale_a_view(m, x):
    z = m.a(x)
    z.view(-1).mul_(2)
    return m.bn(z) + m.other(m.b(x))


def also_returned(m, x):
    z = m.a(x)
    return {"out": m.bn(z), "features": [z, m.other(m.b(x))]}


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda m, x: m.bn(m.a(x)) + m.other(m.b(x)), {"a": "bn", "b": "other"}),
        (lambda m, x: m.bn(m.a(x) + m.b(x)), {"a": None, "b": None}),
        (lambda m, x: m.bn(m.a(x)) + m.bn(m.b(x)), {"a": None, "b": None}),
        (lambda m, x: m.bn(torch.cat([m.a(x)[:, :2], m.b(x)[:, :2]], 1)), {"a": None, "b": None}),
        (lambda m, x: m.bn(m.a(x)) + m.other(m.a(x)), {"a": None}),
        (keep, {"a": None}),
        (add_in_place, {"a": None, "b": "other"}),
        (relu_in_place, {"a": None, "b": "other"}),
        (scale_a_view, {"a": None, "b": "other"}),
        (also_returned, {"a": None, "b": "other"}),
    ],
)
@pytest.mark.filterwarnings("ignore::sparsemend.errors.SparsemendWarning")
def test_only_a_norm_that_alone_consumes_the_output_follows(forward, expected):
    assert norms(two_ways(forward)) == expected


def test_in_place_relu_after_the_norm_changes_nothing():
    net = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(inplace=True), conv(4))
    assert norms(net) == {"0": "1", "3": None}


# Tied weights and repeated calls


def tied():
    net = Net(lambda m, x: m.a(m.c(m.b(x))), a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.ReLU())
    net.b.weight = net.a.weight
    return net


def test_tied_weights_count_once():
    layers = discover(tied(), torch.randn(2, 4))
    assert len(layers) == 1
    assert layers.total == 16
    assert (layers[0].calls, layers[0].norm) == (2, None)


def test_tied_layers_have_the_same_name_with_and_without_inputs():
    for layers in (discover(tied(), torch.randn(2, 4)), discover(tied())):
        assert (layers[0].name, layers[0].aliases) == ("a", ("b",))


def test_a_tied_layer_that_does_not_run_is_not_missing():
    net = tied()
    net._forward = lambda m, x: m.b(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layers = discover(net, torch.randn(2, 4))
    assert (layers.names, layers[0].calls, layers.coverage.left_out) == (("a",), 1, ())


def test_a_weight_that_layers_read_in_two_ways_is_left_out():
    net = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ConvTranspose2d(3, 3, 1, bias=False))
    net[1].weight = net[0].weight
    with pytest.raises(SparsemendError, match=r"no prunable layer .* read in several ways"):
        discover(net, IMAGES)
    with pytest.raises(SparsemendError, match=r"layers '0' and '1' share a weight .* differently"):
        discover(net)


def test_a_module_that_runs_twice():
    net = Net(lambda m, x: m.a(torch.relu(m.a(x))), a=nn.Linear(4, 4))
    assert discover(net, torch.randn(2, 4))[0].calls == 2
    norm = Net(lambda m, x: m.n(m.a(m.n(m.a(x)))), a=nn.Linear(4, 4), n=nn.LayerNorm(4))
    assert norms(norm, torch.randn(2, 4)) == {"a": "n"}


def test_a_module_under_two_names_is_one_layer():
    shared = nn.Linear(4, 4)
    layers = discover(nn.Sequential(shared, nn.ReLU(), shared), torch.randn(2, 4))
    assert (layers.names, layers[0].calls, layers[0].aliases) == (("0",), 2, ())


# Layers that do not run


def test_a_layer_that_never_runs_is_left_out_and_named():
    net = Net(lambda m, x: m.a(x), a=nn.Linear(4, 4), unused=nn.Linear(4, 4))
    with pytest.warns(SparsemendWarning, match="unused.*: not reached by the calib") as caught:
        layers = discover(net, torch.randn(2, 4))
    assert len(caught) == 1
    assert str(caught[0].message) == str(layers.coverage)
    assert layers.names == ("a",)
    (left,) = layers.coverage.left_out
    assert (left.parameter, left.count, left.multiplied) == ("unused.weight", 16, True)


# Batches of any form


@pytest.mark.parametrize(
    "batch",
    [
        (torch.ones(3, 4), torch.ones(3, 4)),
        [torch.ones(3, 4), torch.ones(3, 4)],
        {"x": torch.ones(3, 4), "y": torch.ones(3, 4)},
        ((torch.ones(3, 4),), {"y": torch.ones(3, 4)}),
    ],
    ids=["tuple", "list", "dict", "args-kwargs"],
)
def test_batches_of_any_form(batch):
    def forward(m, x, y):
        return m.bn(m.a(x)) * m.b(y)

    net = Net(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4), bn=nn.BatchNorm1d(4))
    assert norms(net, batch) == {"a": "bn", "b": None}


def test_runs_on_at_most_two_inputs():
    seen = []
    net = Net(lambda m, x: (seen.append(len(x)), m.a(x))[1], a=nn.Linear(4, 4))
    for count in (1, 2, 100):
        discover(net, torch.ones(count, 4))
    assert set(seen) == {1, 2}


def test_inputs_that_cannot_be_cut_are_run_whole():
    # A mask of [positions, positions] looks like a tensor of inputs where there are as many.
    net = Net(lambda m, x, mask: m.a(torch.einsum("st,tne->sne", mask, x)), a=nn.Linear(4, 4))
    assert discover(net, (torch.randn(5, 3, 4), torch.ones(5, 5))).names == ("a",)


def test_a_batch_that_does_not_fit_is_described_whole():
    with pytest.raises(SparsemendError) as caught:
        discover(nn.Linear(4, 4), torch.ones(7, 5))
    assert str(caught.value).startswith("the network cannot run on this batch (float32 [7, 5]): ")
    assert str(caught.value).endswith("whose first dimension is that of the batch")


# What is refused


@pytest.mark.parametrize("batch", [None, torch.ones(2, 3)])
def test_no_prunable_layer(batch):
    net = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU())
    runs = "" if batch is None else " that runs"
    with pytest.raises(SparsemendError) as caught:
        discover(net, batch)
    assert str(caught.value) == (
        f"the model has no prunable layer{runs}; allowed: at least one Conv1d/2d/3d, "
        "ConvTranspose1d/2d/3d or Linear"
    )


@pytest.mark.parametrize(
    ("change", "way_out"),
    [
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "prune.remove makes it plain"),
        (parametrizations.weight_norm, "parametrize.remove_parametrizations makes it plain"),
        (parametrizations.spectral_norm, "parametrize.remove_parametrizations makes it plain"),
    ],
)
def test_computed_weights_are_left_out(change, way_out):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    change(net[1])
    with pytest.warns(
        SparsemendWarning, match=rf"left out: 1\..*what is computed from it.*{way_out}"
    ):
        layers = discover(net, torch.ones(2, 4))
    assert layers.names == ("0",)
    assert {part.parameter.partition(".")[0] for part in layers.coverage.left_out} == {"1"}
    change(net[0])
    with pytest.raises(SparsemendError, match=f"no prunable layer that runs; .*{way_out}"):
        discover(net, torch.ones(2, 4))


def test_lazy_layers_are_refused_until_they_have_run():
    net = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(SparsemendError, match=r"layer '0' is lazy .* run the model once first"):
        discover(net, torch.ones(2, 4))
    net(torch.ones(2, 4))
    assert discover(net, torch.ones(2, 4))[0].shape == (3, 4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    net = nn.Sequential(conv())
    with torch.no_grad():
        net[0].weight[1, 2, 0, 0] = value
    with pytest.raises(SparsemendError, match="layer '0' has NaN or infinite weights"):
        discover(net, IMAGES)


# What is left alone


def test_the_model_is_unchanged():
    net = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Dropout(0.5), conv(4))
    net[1].eval()
    flags = [module.training for module in net.modules()]
    before = copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        discover(net, IMAGES)
    assert [module.training for module in net.modules()] == flags
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()


def test_hooks_go_when_the_model_fails():
    net = nn.Sequential(conv(), nn.Linear(3, 3)).train()
    with pytest.raises(SparsemendError):
        discover(net, IMAGES)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())
    assert all(module.training for module in net.modules())
