"""The built-in networks: keys, shapes, sizes and the registry's errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsemend.errors import SparsemendError
from sparsemend.models import create, names

WIDTH = 4


def _images(name: str, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8) if name == "digits" else torch.randn(count, 3, 32, 32)


@pytest.mark.parametrize("name", names())
def test_maps_images_to_logits(name: str) -> None:
    model = create(name, num_classes=7, width=WIDTH).eval()
    with torch.no_grad():
        assert model(_images(name)).shape == (2, 7)


@pytest.mark.parametrize("name", names())
def test_images_of_a_batch_do_not_mix_in_evaluation(name: str) -> None:
    model = create(name, width=WIDTH).eval()
    images = _images(name, 3)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", names())
def test_every_parameter_takes_part(name: str) -> None:
    model = create(name, width=WIDTH)
    model(_images(name)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "convolutions", "width"),
    [
        ("digits", 9, 16),
        ("cifar_resnet20", 21, 16),
        ("cifar_resnet32", 33, 16),
        ("cifar_resnet44", 45, 16),
        ("cifar_resnet56", 57, 16),
        ("cifar_resnet18", 20, 64),
        ("cifar_resnet34", 36, 64),
        ("cifar_resnet50", 53, 64),
        ("vgg16_bn", 13, 64),
    ],
)
def test_depth_and_default_width(name: str, convolutions: int, width: int) -> None:
    with torch.device("meta"):
        model = create(name)
    found = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(found) == convolutions
    assert found[0].out_channels == width
    assert sum(isinstance(module, nn.Linear) for module in model.modules()) == 1


def test_keys_are_those_of_torchvision() -> None:
    keys = create("cifar_resnet50", width=4).state_dict().keys()
    assert {"conv1.weight", "bn1.running_var", "layer4.2.conv3.weight"} <= keys
    assert {"layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias", "fc.bias"} <= keys
    keys = create("vgg16_bn", width=4).state_dict().keys()
    assert {"features.0.weight", "features.1.running_mean", "features.40.bias"} <= keys
    assert {"classifier.weight", "classifier.bias"} <= keys


def test_shortcut_projects_only_where_the_shape_changes() -> None:
    keys = create("cifar_resnet20").state_dict().keys()
    projections = {key.partition(".downsample.0")[0] for key in keys if ".downsample.0" in key}
    assert projections == {"layer2.0", "layer3.0"}


def test_positional_arguments() -> None:
    model = create("cifar_resnet20", 5, 2)
    assert model.fc.out_features == 5
    assert model.conv1.out_channels == 2


def test_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(SparsemendError, match="did you mean 'cifar_resnet20'") as caught:
        create("cifar_resnet_20")
    assert "vgg16_bn" in str(caught.value)
    assert "package.module:factory" in str(caught.value)


@pytest.mark.parametrize("argument", ["num_classes", "width"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "10"])
def test_sizes_are_positive_integers(argument: str, value: object) -> None:
    with pytest.raises(SparsemendError, match=f"{argument} is o[a-z ]*: got {value!r}; "):
        create("digits", **{argument: value})
