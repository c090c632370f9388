"""The built-in networks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from sparsemend.boundary import public
from sparsemend.checks import check_int
from sparsemend.errors import SparsemendError, did_you_mean
from sparsemend.models.resnet import BasicBlock, Bottleneck, ResNet
from sparsemend.models.vgg import VGG16BN


@dataclass(frozen=True)
class Architecture:
    """How to build a network, and where a checkpoint shows its size.

    Attributes
    ----------
    build
        Called as ``build(num_classes, width)``.
    width
        Default width.
    stem, classifier
        Module paths of the first convolution (its output channels are the width) and of the
        last linear layer (its outputs are the classes).
    """

    build: Callable[[int, int], nn.Module]
    width: int
    stem: str
    classifier: str


def _resnet(
    block: type[BasicBlock] | type[Bottleneck],
    blocks: tuple[int, ...],
    *,
    width: int,
    in_channels: int = 3,
) -> Architecture:
    def build(num_classes: int, width: int) -> nn.Module:
        return ResNet(block, blocks, num_classes=num_classes, width=width, in_channels=in_channels)

    return Architecture(build, width, stem="conv1", classifier="fc")


def _vgg16_bn(num_classes: int, width: int) -> nn.Module:
    return VGG16BN(num_classes=num_classes, width=width)


ARCHITECTURES: dict[str, Architecture] = {
    "cifar_resnet20": _resnet(BasicBlock, (3, 3, 3), width=16),
    "cifar_resnet32": _resnet(BasicBlock, (5, 5, 5), width=16),
    "cifar_resnet44": _resnet(BasicBlock, (7, 7, 7), width=16),
    "cifar_resnet56": _resnet(BasicBlock, (9, 9, 9), width=16),
    "cifar_resnet18": _resnet(BasicBlock, (2, 2, 2, 2), width=64),
    "cifar_resnet34": _resnet(BasicBlock, (3, 4, 6, 3), width=64),
    "cifar_resnet50": _resnet(Bottleneck, (3, 4, 6, 3), width=64),
    "vgg16_bn": Architecture(_vgg16_bn, width=64, stem="features.0", classifier="classifier"),
    "digits": _resnet(BasicBlock, (1, 1, 1), width=16, in_channels=1),
}


def names() -> tuple[str, ...]:
    """Return the names of the built-in networks."""
    return tuple(ARCHITECTURES)


def architecture(name: str) -> Architecture:
    """Return the registry entry of a built-in network.

    Raises
    ------
    SparsemendError
        If there is none of that name.
    """
    if name not in ARCHITECTURES:
        hint = did_you_mean(name, ARCHITECTURES)
        raise SparsemendError(
            "unknown model",
            name,
            ", ".join(ARCHITECTURES),
            f"{hint} a network of your own is loaded as 'package.module:factory'".lstrip(),
        )
    return ARCHITECTURES[name]


@public
def create(name: str, num_classes: int = 10, width: int | None = None) -> nn.Module:
    """Build a built-in network with random weights.

    Parameters
    ----------
    name
        One of ``names()``.
    num_classes
        Outputs of the classifier.
    width
        Channels of the first convolution, with which all others scale; the architecture's own
        by default (16 for the CIFAR ResNets and ``digits``, 64 for the others).

    Returns
    -------
    nn.Module
        In training mode, as PyTorch builds modules. Takes images [N, 3, 32, 32], or
        [N, 1, 8, 8] for ``digits``.

    Raises
    ------
    SparsemendError
        For an unknown name, or a ``num_classes`` or ``width`` that is no positive integer.

    Examples
    --------
    >>> create("cifar_resnet20", num_classes=100).fc.out_features
    100
    """
    entry = architecture(name)
    width = entry.width if width is None else width
    return entry.build(check_int("num_classes", num_classes), check_int("width", width))
