"""VGG-16 with batch normalisation, as the CIFAR literature runs it on 32x32 images."""

from __future__ import annotations

from torch import Tensor, nn

# Channels of each convolution in units of the width; "M" is a 2x2 max-pooling.
_VGG16 = (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M")


class VGG16BN(nn.Module):
    """Thirteen 3x3 convolutions (``features.N``, as in torchvision) and one linear ``classifier``.

    Parameters
    ----------
    num_classes
        Outputs of the classifier.
    width
        Channels of the first convolution; the others are 2, 4 and 8 times as many.
    in_channels
        Channels of the input images, which are at least 32 pixels on each side.
    """

    def __init__(self, *, num_classes: int, width: int, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for entry in _VGG16:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2))
                continue
            out_channels = entry * width
            layers += [
                nn.Conv2d(channels, out_channels, 3, padding=1),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(),
            ]
            channels = out_channels
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to logits [N, num_classes]."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits
