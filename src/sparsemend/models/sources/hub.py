"""Caches of pretrained weights on this machine: PyTorch's, and that of the hub of Hugging Face."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sparsemend.imports import require


def cached_file(url: str) -> Path:
    """Where PyTorch keeps what it has downloaded from an address, which need not be there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within, only what the local cache has is found."""
    constants: Any = require(
        "huggingface_hub.constants", purpose="the cache of weights", extra="hf"
    )
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
