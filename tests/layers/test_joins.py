import pytest
import torch
from torch import nn

from sparsemend import models
from sparsemend.layers import Shortcut, discover, surroundings


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
    assert around["layer1.1.conv2"].shortcut == Shortcut("layer1.1.conv1", None)
    projection = "layer2.0.downsample.0"
    assert around["layer2.0.conv2"].shortcut == Shortcut(projection, projection)
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
