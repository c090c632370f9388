"""Functions of PyTorch that consist of operations with weights, and how to look into them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn import functional as F

# Functions of PyTorch that are written in Python and multiply with weights inside.
OPENED = frozenset({F.multi_head_attention_forward})
_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


@contextmanager
def opened() -> Iterator[None]:
    """Let functions of ``torch.nn.functional`` run as they are written.

    They ask first whether somebody watches, and would then hand the whole call over instead of
    the operations that it consists of.
    """
    before = {name: getattr(F, name) for name in _CHECKS}
    try:
        for name in _CHECKS:
            setattr(F, name, lambda *_: False)
        yield
    finally:
        for name, check in before.items():
            setattr(F, name, check)
