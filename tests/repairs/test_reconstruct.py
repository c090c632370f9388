"""Reconstruction of whole networks: exact counts, dense outputs at full density, warnings."""

import copy

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError, SparsemendWarning
from sparsemend.layers import discover, layer_weight
from sparsemend.repairs import FitSettings, Support, Terms, parse_repair
from sparsemend.repairs.reconstruction import reconstruct
from sparsemend.session import Session

from .networks import conv_bn, images, perceptron, randomise, same_state

ILL = "ignore:reconstruction leans on its ridge"


def counts(layers, density):
    return {layer.name: max(1, round(density * layer.size)) for layer in layers}


def random_masks(model, layers, density, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, kept in counts(layers, density).items():
        weight = model.get_submodule(name).weight
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[torch.randperm(weight.numel(), generator=generator)[:kept]] = True
        masks[name] = mask.reshape(weight.shape)
    return masks


def rebuilt(dense, batches, density, free=True, settings=None, new_biases=False):
    """The reconstructed network, its masks, and what the reconstruction reports."""
    layers, model = discover(dense, batches[0]), copy.deepcopy(dense)
    masks = None if free else random_masks(dense, layers, density)
    if masks is not None:
        with torch.no_grad():
            for name, mask in masks.items():
                model.get_submodule(name).weight.masked_fill_(~mask, 0)
    before = copy.deepcopy(dense)
    support = Support(counts(layers, density), masks)
    done = reconstruct(Session(dense, batches), model, support, settings, new_biases=new_biases)
    assert same_state(dense, before)
    if masks is not None:
        assert all(torch.equal(done.masks[name], mask) for name, mask in masks.items())
    return model, done, layers


def check(model, done, layers, density):
    """Exact counts, zeros outside the masks, finite values everywhere."""
    assert set(done.masks) == set(layers.names)
    for name, kept in counts(layers, density).items():
        weight, mask = model.get_submodule(name).weight, done.masks[name]
        assert mask.shape == weight.shape
        assert int(mask.sum()) == kept
        assert not weight[~mask].any()
    for value in model.state_dict().values():
        assert value.isfinite().all()


def kl(model, dense, batches):
    return sm.agreement(model, dense, batches).kl


class Twice(nn.Module):
    """A layer that runs twice, before another that runs once."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = x + torch.relu(self.again(torch.relu(self.again(x))))
        return self.head(x.mean(dim=(2, 3)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.b.weight = self.a.weight
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(torch.relu(self.b(torch.relu(self.a(x)))).mean(dim=(2, 3)))


class Block(nn.Module):
    """A residual block; ``late`` runs the projection after the convolutions, ``hidden`` sums
    in a way that the graph does not show as a sum."""

    def __init__(self, channels=4, width=6, stride=2, late=False, hidden=False):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            conv = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(width))
        self.late, self.hidden = late, hidden

    def shortcut(self, x):
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x):
        side = None if self.late else self.shortcut(x)
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        side = self.shortcut(x) if side is None else side
        joined = torch.stack([out, side]).sum(dim=0) if self.hidden else out + side
        return torch.relu(joined)


def residual_net(late=False, hidden=False, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        Block(6, 6, 1, late, hidden),
        Block(6, 8, 2, late, hidden),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    return randomise(net, seed)


class Context(nn.Module):
    """A layer whose output is broadcast in the sum that it feeds."""

    def __init__(self):
        super().__init__()
        self.stem, self.gate = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 1, 1)
        self.transform, self.head = nn.Conv2d(6, 6, 1), nn.Linear(6, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        weight = self.gate(x).flatten(2).softmax(dim=2)
        context = (x.flatten(2) * weight).sum(dim=2)[:, :, None, None]
        return self.head(torch.relu(self.transform(context) + x).mean(dim=(2, 3)))


class Tokens(nn.Module):
    """Linear layers on sequences, with a shortcut."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 9), nn.Linear(9, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.embed(x.flatten(2).transpose(1, 2))
        x = x + self.down(torch.relu(self.up(x)))
        return self.head(x.mean(dim=1))


def grouped():
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


def transposed():
    return nn.Sequential(
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2, bias=False),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


NETWORKS = {
    "residual": residual_net,
    "late projection": lambda: residual_net(late=True),
    "hidden sum": lambda: residual_net(hidden=True),
    "plain": conv_bn,
    "group norms": lambda: conv_bn(norms=("group", "batch")),
    "without norms": lambda: conv_bn(norms=("none",)),
    "grouped": grouped,
    "transposed": transposed,
    "linear": lambda: nn.Sequential(nn.Flatten(), *perceptron(sizes=(100, 12, 9, 5))),
    "twice": Twice,
    "tied": Tied,
    "broadcast": Context,
    "tokens": Tokens,
}


def network(kind):
    torch.manual_seed(0)
    return randomise(NETWORKS[kind](), 0)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.filterwarnings(ILL)
def test_every_kind_of_network(kind, free):
    dense, batches = network(kind), list(images(60).split(25))
    model, done, layers = rebuilt(dense, batches, 0.4, free)
    check(model, done, layers, 0.4)
    with torch.no_grad():
        assert model(batches[0]).isfinite().all()
    again, repeated, _ = rebuilt(dense, batches, 0.4, free)
    assert same_state(model, again)
    assert all(torch.equal(done.masks[name], repeated.masks[name]) for name in done.masks)
    expected = dense.state_dict().keys() | {f"{name}.bias" for name in done.added_biases}
    assert model.state_dict().keys() == expected


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.filterwarnings(ILL)
def test_only_a_zero_pruned_is_the_dense_network(kind, free):
    dense, batches = network(kind).double(), list(images(120, dtype=torch.float64).split(50))
    layers = discover(dense, batches[0])
    # The first layer to be repaired: those that run several times come before all others.
    first = next((layer for layer in layers if layer.calls > 1), next(iter(layers)))
    weight = dense.get_submodule(first.name).weight
    masks = {layer.name: torch.ones_like(layer_weight(dense, layer)) > 0 for layer in layers}
    with torch.no_grad():
        weight.view(-1)[0] = 0
    masks[first.name].view(-1)[0] = False
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    model = copy.deepcopy(dense)
    support = Support(counts, None if free else masks)
    reconstruct(Session(dense, batches), model, support, FitSettings(ridge=1e-9))
    assert not same_state(model, dense)
    with torch.no_grad():
        for batch in (*batches, images(20, seed=7, dtype=torch.float64)):
            torch.testing.assert_close(model(batch), dense(batch), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("kind", NETWORKS)
def test_layers_ahead_of_all_damage_stay_as_they_are(kind, free):
    dense, batches = network(kind), list(images(60).split(25))
    model, done, _ = rebuilt(dense, batches, 1.0, free)
    assert same_state(model, dense)
    assert all(mask.all() for mask in done.masks.values())


@pytest.mark.parametrize("kind", ["residual", "without norms", "grouped", "tokens"])
@pytest.mark.filterwarnings(ILL)
def test_closer_than_pruning_alone(kind):
    dense, batches = network(kind), list(images(120).split(50))
    unseen = [images(100, seed=5)]
    model, _, layers = rebuilt(dense, batches, 0.5, free=False)
    pruned = copy.deepcopy(dense)
    with torch.no_grad():
        for name, mask in random_masks(dense, layers, 0.5).items():
            pruned.get_submodule(name).weight.masked_fill_(~mask, 0)
    assert kl(model, dense, unseen) < 0.7 * kl(pruned, dense, unseen)


@pytest.mark.filterwarnings(ILL)
def test_half_precision():
    dense, batches = network("residual").bfloat16(), list(images(60).split(25))
    model, done, layers = rebuilt(dense, batches, 0.4)
    check(model, done, layers, 0.4)
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    wide, _, _ = rebuilt(network("residual"), batches, 0.4)
    assert kl(model, dense, batches) < kl(wide, network("residual"), batches) + 0.05


@pytest.mark.filterwarnings(ILL)
def test_new_biases_are_reported_and_keys_stay_where_a_norm_takes_the_shift():
    model, done, _ = rebuilt(network("transposed"), [images(40)], 0.5, new_biases=True)
    assert done.added_biases == ("2",)
    assert model[2].bias.isfinite().all()
    model, done, _ = rebuilt(network("residual"), [images(40)], 0.5)
    assert done.added_biases == ()
    dense = network("transposed")
    pruned = sm.prune(dense, {"2": 40})
    with pytest.warns(SparsemendWarning, match="layers that got a bias parameter: 2$"):
        sm.repair(pruned, dense, images(40), "reconstruct", new_biases=True)


def sum_error(model, dense, x, block):
    """E(relu(sum) − relu(dense sum))² behind a block of two networks."""
    with torch.no_grad():
        return float((model[: block + 1](x) - dense[: block + 1](x)).square().mean())


@pytest.mark.filterwarnings(ILL)
@pytest.mark.parametrize("late", [False, True])
def test_a_sum_that_is_found_is_closer_than_a_hidden_one(late):
    ratios = []
    for seed in range(4):
        errors = []
        for hidden in (False, True):
            dense = residual_net(late=late, hidden=hidden, seed=seed)
            x = images(100, seed=seed)
            model, _, _ = rebuilt(dense, list(x.split(50)), 0.25, free=False)
            errors.append([sum_error(model, dense, x, block) for block in (3, 4)])
        ratios.append([found / hidden for found, hidden in zip(*errors, strict=True)])
    for block in range(2):
        mean = sum(ratio[block] for ratio in ratios) / len(ratios)
        assert mean < 0.97


@pytest.mark.filterwarnings(ILL)
def test_the_order_of_the_projection_does_not_matter():
    batches = list(images(60).split(30))
    early, _, _ = rebuilt(residual_net(late=False), batches, 0.4, free=False)
    late = residual_net(late=True)
    # The same masks, although layers run in another order.
    layers = discover(residual_net(late=False), batches[0])
    masks = random_masks(late, layers, 0.4)
    model = copy.deepcopy(late)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_submodule(name).weight.masked_fill_(~mask, 0)
    late_layers = discover(late, batches[0])
    assert late_layers.names != layers.names
    reconstruct(Session(late, batches), model, Support(counts(layers, 0.4), masks))
    torch.testing.assert_close(model.state_dict(), early.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["residual", "grouped", "transposed", "tokens"])
@pytest.mark.filterwarnings(ILL)
def test_order_of_batches_changes_nothing_beyond_rounding(kind):
    dense = network(kind).double()
    batches = list(images(80, dtype=torch.float64).split(17))
    one, _, _ = rebuilt(dense, batches, 0.5, free=False)
    other, _, _ = rebuilt(dense, batches[::-1], 0.5, free=False)
    with torch.no_grad():
        x = images(30, seed=3, dtype=torch.float64)
        torch.testing.assert_close(one(x), other(x), rtol=1e-3, atol=1e-3)


def test_a_single_output_is_plain_least_squares():
    # Class probabilities say nothing about a single output.
    torch.manual_seed(0)
    x = torch.randn(300, 4) @ torch.randn(4, 10) + 0.1 * torch.randn(300, 10)
    dense = nn.Sequential(nn.Linear(10, 1))
    fits = []
    for refits in (0, 20):
        model, _, _ = rebuilt(dense, [x], 0.9, settings=FitSettings(logit_refits=refits))
        fits.append(model[0].weight.detach())
    torch.testing.assert_close(*fits)


# Moments that do not determine the weights


def constant(count, shape=(4, 5, 5)):
    return torch.ones(count, *shape) * torch.arange(1.0, shape[0] + 1).reshape(-1, 1, 1)


def dead_inputs():
    net = conv_bn()
    with torch.no_grad():  # behind a ReLU that is always off
        net[1].weight[2], net[1].bias[2] = 0, -1
    return net


CASES = {
    "dead inputs": (dead_inputs, lambda: [images(60)], "3", "inputs are constant"),
    "constant images": (conv_bn, lambda: [constant(9)] * 3, "0", "inputs are constant"),
    "black images": (conv_bn, lambda: [torch.zeros(9, 4, 5, 5)], "0", "36 of 36 inputs"),
    "one image": (conv_bn, lambda: [images(1)], "0", "25 positions for fan-in 36"),
    "few inputs": (perceptron, lambda: [torch.randn(4, 6)], "0", "4 positions for fan-in 6"),
}


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("kind", CASES)
def test_ill_conditioned_moments_warn_and_stay_finite(kind, free):
    make, inputs, name, why = CASES[kind]
    torch.manual_seed(0)
    dense = make()
    with pytest.warns(SparsemendWarning, match="leans on its ridge in ill-conditioned") as caught:
        model, done, layers = rebuilt(dense, inputs(), 0.3, free)
    text = str(caught[0].message)
    assert len(caught) == 1
    assert any(part.startswith(f"{name} (") and why in part for part in split_layers(text)), text
    check(model, done, layers, 0.3)


def split_layers(text):
    return text.split("layers: ")[1].split("; ")


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.filterwarnings(ILL)
@pytest.mark.filterwarnings("ignore:all calibration inputs are the same")
def test_the_whole_job_on_ill_conditioned_moments(kind):
    make, inputs, _, _ = CASES[kind]
    torch.manual_seed(0)
    dense = make()
    result = sm.compress(dense, inputs(), 0.7, "global")
    assert sum(int(mask.sum()) for mask in result.masks.values()) == result.allocation.kept
    assert all(value.isfinite().all() for value in result.model.state_dict().values())


def test_good_moments_do_not_warn():
    torch.manual_seed(0)
    head = (nn.Flatten(), nn.Linear(54, 8), nn.Tanh(), nn.Linear(8, 5))
    rebuilt(nn.Sequential(nn.Conv2d(4, 6, 3), nn.Tanh(), *head), [images(200)], 0.5)


# Against the other repairs, and what is refused


@pytest.mark.filterwarnings(ILL)
@pytest.mark.parametrize("sparsity", [0.8, 0.9])
def test_closer_than_channelwise_repairs_on_a_trained_network(digits, sparsity):
    results = {
        (repair, mask): sm.compress(
            digits.model, digits.calibration, sparsity, "global", mask=mask, repair=repair,
            heldout=digits.heldout,
        ).agreement.kl
        for repair, mask in (
            ("variance", "magnitude"),
            ("affine", "magnitude"),
            ("reconstruct", "magnitude"),
            ("reconstruct", "gradual"),
        )
    }  # fmt: skip
    channelwise = min(results["variance", "magnitude"], results["affine", "magnitude"])
    assert results["reconstruct", "magnitude"] < channelwise
    assert results["reconstruct", "gradual"] < channelwise


def test_one_shot_scope_is_refused():
    dense = conv_bn()
    before = copy.deepcopy(dense)
    text = "^repair 'reconstruct' works layer by layer: got 'one-shot'; allowed: scope 'sequential'"
    with pytest.raises(SparsemendError, match=text):
        sm.repair(dense, dense, images(), "reconstruct", scope="one-shot")
    with pytest.raises(SparsemendError, match=text):
        sm.compress(
            dense, images(), 0.5, "global", repair="reconstruct", scope="one-shot", inplace=True
        )
    with pytest.raises(SparsemendError, match=r"^repair 'reconstruct\+batchnorm' works layer by"):
        sm.repair(dense, dense, images(), "reconstruct+batchnorm", scope="one-shot")
    assert same_state(dense, before)


@pytest.mark.filterwarnings(ILL)
def test_the_public_repair_keeps_zeros_and_arguments():
    dense, x = conv_bn(), images(120)
    pruned = sm.prune(dense, counts(discover(dense, x), 0.4))
    before = copy.deepcopy(pruned)
    repaired = sm.repair(pruned, dense, x, "reconstruct")
    assert same_state(pruned, before)
    found, given = sm.find_masks(repaired), sm.find_masks(pruned)
    # A weight that was kept on a dead input may become zero.
    assert not any((found[name] & ~mask).any() for name, mask in given.items())
    assert kl(repaired, dense, [x]) < kl(pruned, dense, [x])
    assert sm.repair(pruned, dense, x, "reconstruct", inplace=True) is pruned
    assert same_state(pruned, repaired)


@pytest.mark.filterwarnings(ILL)
def test_a_formula_without_masks_must_reconstruct():
    dense, x = conv_bn(), images(120)
    layers = discover(dense, x)
    free = Support(counts(layers, 0.5), None)
    model = copy.deepcopy(dense)
    plan = parse_repair("reconstruct+batchnorm")
    outcome = plan.run(Session(dense, [x]), model, Terms(free))
    assert {name: int(mask.sum()) for name, mask in outcome.masks.items()} == free.counts
    with pytest.raises(SparsemendError, match="repair 'variance' needs masks"):
        parse_repair("variance").run(Session(dense, [x]), model, Terms(free))


@pytest.mark.parametrize("repair", ["reconstruct", "variance"])
@pytest.mark.parametrize("exponent", [-80, -34, -10, 10, 34, 60])
@pytest.mark.parametrize("layer", [0, 2])
def test_the_unit_of_a_layer_does_not_matter(layer, exponent, repair):
    """Weights times a power of two, and the next layer's divided by it: the same function."""

    def network(unit):
        torch.manual_seed(0)
        convolutions = (nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        model = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), *head)
        following = model[2 if layer == 0 else 6]
        with torch.no_grad():
            for parameter in model[layer].parameters():
                parameter *= unit
            following.weight /= unit
        return model.eval()

    x = images(48)
    plain, scaled = (
        sm.compress(network(unit), x.split(16), 0.8, "erk", repair=repair)
        for unit in (1.0, 2.0**exponent)
    )
    assert all(torch.equal(scaled.masks[name], mask) for name, mask in plain.masks.items())
    with torch.no_grad():
        torch.testing.assert_close(scaled.model(x), plain.model(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("free", [True, False])
def test_pruned_weights_are_never_negative_zeros(free):
    mask = None if free else "magnitude"
    result = sm.compress(perceptron(), torch.randn(64, 6), 0.5, "erk", mask, "reconstruct")
    for name, mask in result.masks.items():
        assert not result.model.get_submodule(name).weight[~mask].signbit().any()
