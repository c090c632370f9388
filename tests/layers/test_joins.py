import pytest
import torch
from tests.layers import streams
from torch import nn

from sparsemend import models
from sparsemend.layers import Addend, Shortcut, discover, in_passing, surroundings


@pytest.fixture(scope="module")
def around():
    return surroundings(discover(models.create("cifar_resnet20", width=2), torch.randn(2, 3, 8, 8)))


def test_every_layer_that_runs_once_is_there(around):
    assert len(around) == 22
    twice = nn.Linear(3, 3)
    net = nn.Sequential(nn.Linear(3, 3), twice, twice)
    assert list(surroundings(discover(net, torch.randn(2, 3)))) == ["0"]


def test_only_the_last_layer_gives_the_output(around):
    assert [name for name, found in around.items() if found.final] == ["fc"]


def test_an_output_that_goes_on_is_not_final():
    class Features(nn.Sequential):
        def forward(self, x):
            features = self[0](x)
            return self[1](features), features

    found = surroundings(discover(Features(nn.Linear(3, 3), nn.Linear(3, 3)), torch.randn(2, 3)))
    assert [found[name].final for name in ("0", "1")] == [False, True]


def test_activations_are_seen_behind_norms_and_sums(around):
    assert around["conv1"].relu
    assert around["layer1.0.conv1"].relu
    assert around["layer1.0.conv2"].relu
    assert not around["fc"].relu


def test_shortcuts_start_where_the_block_does(around):
    assert around["layer1.0.conv1"].shortcut is None
    assert around["layer1.1.conv2"].shortcut == Shortcut((Addend("layer1.1.conv1"),))
    projection = "layer2.0.downsample.0"
    assert around["layer2.0.conv2"].shortcut == Shortcut((Addend(projection, projection),))
    assert around["layer2.0.conv1"].ready_at == projection


def test_a_sum_of_two_layers_is_no_shortcut():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(3, 3) for _ in range(3))

        def forward(self, x):
            return torch.relu(self.a(x) + torch.tanh(self.b(x)) + self.c(x))

    found = surroundings(discover(Sum(), torch.randn(2, 3)))
    assert all(one.shortcut is None and not one.relu for one in found.values())


@pytest.fixture(scope="module", params=streams.NETWORKS)
def stream(request):
    torch.manual_seed(0)
    net = streams.NETWORKS[request.param]()
    return request.param, net, surroundings(discover(net, streams.inputs(request.param)))


LAST = {"attention": "attention.out_proj"}


def test_a_residual_stream_is_found_behind_every_block(stream):
    kind, _, found = stream
    # The module that the stream enters, or the layer that has it as its input.
    source = "depthwise" if kind == "turned" else "norm"
    expected = {(source, None)}
    if kind.startswith("parallel"):  # the branch that runs last corrects the other one too
        expected.add(("attention", "attention"))
    shortcut = found[LAST.get(kind, "down")].shortcut
    assert {(part.source, part.projection) for part in shortcut.addends} == expected


def test_the_way_to_the_sum_is_what_the_network_computes(stream):
    kind, net, found = stream
    path = found[LAST.get(kind, "down")].shortcut.path
    channels = torch.ones(streams.WIDTH)
    for part in path.scale:
        channels = channels * (part if isinstance(part, float) else part.of(net).flatten())
    scaled = {"layer scale": 0.5, "turned": 1.0}
    expected = scaled[kind] * net.gamma.detach() if kind in scaled else torch.ones(streams.WIDTH)
    torch.testing.assert_close(channels, expected)
    orders = {"turned": (0, 3, 1, 2), "attention": (1, 0, 2)}
    assert path.order == orders.get(kind, ())


def test_names_play_no_part():
    class Renamed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 4)

        def forward(self, x):
            x = torch.tanh(self.a(x))
            return self.c(self.b(x).softmax(dim=-1)) + x

    found = surroundings(discover(Renamed(), torch.randn(2, 4)))
    assert found["c"].shortcut == Shortcut((Addend("b"),))


class Told(streams.PreNorm):
    """A stream that something else happens to before the sum."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        branch = self.branch(x)
        match self.how:
            case "nonlinear":
                return x + torch.tanh(branch)
            case "computed scale":
                return x + branch * x.mean()
            case "mixed channels":
                return x + branch.flip(-1)
            case "broadcast":
                return x + branch.mean(dim=1, keepdim=True)
            case "overwritten":
                y = x.mul_(2)
                return y + branch
            case "scaled sum":
                return torch.add(x, branch, alpha=2)
            case "seen elsewhere":
                return x + branch, branch


@pytest.mark.parametrize(
    "how",
    [
        *("nonlinear", "computed scale", "mixed channels", "broadcast", "overwritten"),
        *("scaled sum", "seen elsewhere"),
    ],
)
def test_what_is_no_plain_sum_with_the_output_is_no_shortcut(how):
    found = surroundings(discover(Told(how), streams.inputs("")))
    assert found["down"].shortcut is None


def test_a_projection_that_is_repaired_first_does_not_wait_for_the_branch():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down, self.side = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(4, 3)
            self.depth = nn.Identity()

        def forward(self, x):
            branch = self.depth(self.down(torch.relu(self.up(x))))
            return branch + self.side(x)

    found = surroundings(discover(Late(), torch.randn(2, 4)))
    assert found["down"].shortcut == Shortcut((Addend("up", "side"),))
    assert found["side"].shortcut is None


def test_runs_come_by_in_the_order_of_the_graph():
    layers = discover(streams.PreNorm(), streams.inputs(""))
    assert in_passing(layers, ["norm"]) == ["stem", "norm", "up", "down"]
    assert in_passing(layers, []) == list(layers.names)
