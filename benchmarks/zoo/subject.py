"""One architecture: how to make it, and inputs for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

INPUTS, BATCH = 32, 8


@dataclass(frozen=True)
class Subject:
    """An architecture of the zoo.

    Attributes
    ----------
    make
        The network, with random weights.
    draw
        (generator, number of inputs) → a batch, in any form that the library takes.
    judge
        As :func:`sparsemend.compress` takes it, for outputs that no judge of the library can read.
    """

    make: Callable[[], nn.Module]
    draw: Callable[[torch.Generator, int], Any]
    judge: str | Callable[[Any, Any], Tensor] = "auto"

    def build(self) -> nn.Module:
        """The network in evaluation mode, its weights random but its statistics calibrated."""
        torch.manual_seed(0)
        model = self.make()
        for parameter in model.parameters():
            with torch.no_grad():
                # Zeros that some architectures start from, or memory that nobody has written.
                constant = parameter.dim() > 1 and bool((parameter == parameter.flatten()[0]).all())
                if constant or not parameter.isfinite().all():
                    parameter.normal_(0, 0.02)
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True
        if norms:
            with torch.no_grad():
                for batch in self.batches(seed=1)[:2]:
                    run(model, batch)
        return model.eval()

    def batches(self, seed: int = 0) -> list[Any]:
        """32 inputs."""
        generator = torch.Generator().manual_seed(seed)
        return [self.draw(generator, BATCH) for _ in range(INPUTS // BATCH)]


def run(model: nn.Module, batch: Any) -> Any:
    """Call a model with a batch of any form that the zoo has."""
    if isinstance(batch, dict):
        return model(**batch)
    if isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[1], dict):
        return model(*batch[0], **batch[1])
    return model(*batch) if isinstance(batch, tuple) else model(batch)


def images(size: int, channels: int = 3) -> Callable[[torch.Generator, int], Tensor]:
    """Smooth random images [N, channels, size, size]."""

    def draw(generator: torch.Generator, count: int) -> Tensor:
        coarse = torch.randn(count, channels, size // 8, size // 8, generator=generator)
        fine = torch.randn(count, channels, size, size, generator=generator)
        smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        return smooth + 0.3 * fine

    return draw


def tokens(
    length: int, vocabulary: int = 100, **more: Callable[[torch.Generator, int], Tensor]
) -> Callable[[torch.Generator, int], dict[str, Tensor]]:
    """``input_ids`` [N, length] and whatever else is named."""

    def draw(generator: torch.Generator, count: int) -> dict[str, Tensor]:
        ids = torch.randint(5, vocabulary, (count, length), generator=generator)
        return {"input_ids": ids, **{name: make(generator, count) for name, make in more.items()}}

    return draw


def ids(length: int, vocabulary: int = 100) -> Callable[[torch.Generator, int], Tensor]:
    """Token numbers [N, length]."""
    return lambda generator, count: torch.randint(
        5, vocabulary, (count, length), generator=generator
    )


def noise(*shape: int) -> Callable[[torch.Generator, int], Tensor]:
    """Normal numbers [N, *shape]."""
    return lambda generator, count: torch.randn(count, *shape, generator=generator)
