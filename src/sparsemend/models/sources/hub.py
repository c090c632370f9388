"""The hub of Hugging Face, which timm and transformers load weights from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sparsemend.imports import require


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
