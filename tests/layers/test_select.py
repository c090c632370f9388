import pytest
import torch
from torch import nn

from sparsemend import SparsemendError, models
from sparsemend.layers import discover, select_layers

IMAGES = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("name", "projections"),
    [
        ("cifar_resnet20", ["layer2.0.downsample.0", "layer3.0.downsample.0"]),
        ("cifar_resnet18", [f"layer{i}.0.downsample.0" for i in (2, 3, 4)]),
        ("cifar_resnet50", [f"layer{i}.0.downsample.0" for i in (1, 2, 3, 4)]),
    ],
)
def test_projections_of_residual_networks(name, projections):
    layers = discover(models.create(name, width=4), IMAGES)
    assert sorted(select_layers(layers, "projection")) == projections


class Residual(nn.Module):
    """A block whose shortcut runs before its branch, or after it."""

    def __init__(self, *, shortcut_first, kernel=1):
        super().__init__()
        self.early = shortcut_first
        self.stem = nn.Conv2d(3, 4, 1)
        self.way = nn.Conv2d(4, 8, kernel, padding=kernel // 2)
        self.conv1 = nn.Conv2d(4, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        if self.early:
            shortcut = self.way(x)
        y = self.conv2(torch.relu(self.conv1(x)))
        return y + (shortcut if self.early else self.way(x))


@pytest.mark.parametrize("shortcut_first", [True, False])
def test_names_and_order_play_no_part(shortcut_first):
    layers = discover(Residual(shortcut_first=shortcut_first), IMAGES)
    assert select_layers(layers, "projection") == ("way",)


def test_a_projection_is_one_by_one():
    layers = discover(Residual(shortcut_first=False, kernel=3), IMAGES)
    with pytest.raises(SparsemendError, match="no layer of the network is meant"):
        select_layers(layers, "projection")


def test_a_layer_of_just_this_name_counts_before_its_class():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.projection = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.projection(self.last(x))

    layers = discover(Net(), torch.ones(2, 4))
    assert select_layers(layers, "last") == ("last",)
    assert select_layers(layers, "projection") == ("projection",)
    assert select_layers(layers, "first") == ("last",)


def test_without_inputs_projections_are_not_known():
    layers = discover(models.create("cifar_resnet20", width=2))
    with pytest.raises(SparsemendError, match=r"pass layers=discover\(model, batch\)"):
        select_layers(layers, "projection")
    assert select_layers(layers, "first") == ("conv1",)


def test_depthwise_first_and_last():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 12, 3, groups=6),  # two outputs for every channel
        nn.Conv2d(12, 12, 1, groups=3),  # grouped, but not depthwise
        nn.ConvTranspose2d(12, 12, 1, groups=12),
        nn.ConvTranspose2d(12, 6, 1, groups=6),
    )
    layers = discover(net, IMAGES)
    assert select_layers(layers, "depthwise") == ("1", "2", "4")
    assert (select_layers(layers, "first"), select_layers(layers, "last")) == (("0",), ("5",))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("fc", ["fc"]),
        ("layer1.*.conv1", ["layer1.0.conv1", "layer1.1.conv1", "layer1.2.conv1"]),
        ("layer[23].0.conv2", ["layer2.0.conv2", "layer3.0.conv2"]),
        ("layer?.2.conv1", ["layer1.2.conv1", "layer2.2.conv1", "layer3.2.conv1"]),
    ],
)
def test_patterns_of_names(pattern, names):
    layers = discover(models.create("cifar_resnet20", width=2), IMAGES)
    assert list(select_layers(layers, pattern)) == names


def test_a_pattern_that_means_nothing():
    layers = discover(models.create("cifar_resnet20", width=2), IMAGES)
    with pytest.raises(SparsemendError) as caught:
        select_layers(layers, "Layer1*")
    assert (
        "got 'Layer1*'; allowed: projection, first, last, depthwise, Conv2d, Linear, or a pattern"
        in str(caught.value)
    )


def test_kinds_of_layers_where_no_name_is_meant():
    layers = discover(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 2)), IMAGES)
    assert select_layers(layers, "Conv2d") == ("0",)
    assert select_layers(layers, "Linear") == ("2",)
    with pytest.raises(SparsemendError, match="depthwise, Conv2d, Linear, or a pattern of 0, 2"):
        select_layers(layers, "ReLU")
