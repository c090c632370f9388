"""Residual networks for small images, with the parameter keys torchvision uses.

One class covers both families: the CIFAR networks of He et al. (three stages of basic
blocks, widths 16/32/64) and the ImageNet ones (four stages, widths 64 to 512) with a 3x3
stem of stride 1 and no max-pooling, so that 32x32 images keep their resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def _conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return a 1x1 projection where the shape changes, None where the identity fits."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [N, in, H, W] to [N, channels, H/stride, W/stride]."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        activations: Tensor = self.relu(out + identity)
        return activations


class Bottleneck(nn.Module):
    """1x1, 3x3 (carries the stride), 1x1: [N, in, H, W] to [N, 4 channels, H/stride, W/stride]."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = _conv1x1(in_channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _conv1x1(channels, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        activations: Tensor = self.relu(out + identity)
        return activations


class ResNet(nn.Module):
    """Residual network: 3x3 stem, one stage per entry of ``blocks``, average pool, classifier.

    Parameters
    ----------
    block
        ``BasicBlock`` or ``Bottleneck``.
    blocks
        Number of blocks of each stage. Every stage after the first halves the resolution
        and doubles the width.
    num_classes
        Outputs of the classifier ``fc``.
    width
        Channels of the stem and of the first stage.
    in_channels
        Channels of the input images.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        *,
        num_classes: int,
        width: int,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self._stages = tuple(f"layer{i + 1}" for i in range(len(blocks)))
        features = width
        for i, (stage, depth) in enumerate(zip(self._stages, blocks, strict=True)):
            channels = width * 2**i
            layers: list[nn.Module] = []
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                layers.append(block(features, channels, stride))
                features = channels * block.expansion
            self.add_module(stage, nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to logits [N, num_classes]."""
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        for stage in self._stages:
            out = self.get_submodule(stage)(out)
        logits: Tensor = self.fc(self.avgpool(out).flatten(1))
        return logits
