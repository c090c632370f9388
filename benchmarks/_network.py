"""A trained network of the data folder, and its images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import sparsemend as sm


def load(
    data: Path, network: str, device: torch.device | str = "cpu"
) -> tuple[nn.Module, sm.data.DataSet]:
    """A network such as ``cifar10_resnet20`` in evaluation mode, and the images of ``cifar10``."""
    data_set, architecture = network.split("_")
    weights = data / "weights" / f"{network}.safetensors"
    loaded = sm.models.load(f"cifar_{architecture}", weights)
    images = sm.data.load(data / data_set, mean=loaded.mean, std=loaded.std)
    return loaded.model.eval().to(device), images
