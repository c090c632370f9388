"""How much the network's output suffers from noise in one layer, measured in forward passes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sparsemend.evaluation import Jury, Reference
from sparsemend.execution.batches import Batch
from sparsemend.layers import Call, Layer, LayerCalls, LayerSet, channel_last, channel_shape
from sparsemend.progress import progress_bar

# Relative variance of the noise: large enough to stand out, small enough to stay in proportion.
NOISE = 0.1


def sensitivities(
    dense: nn.Module,
    batches: Sequence[Batch],
    layers: LayerSet,
    *,
    jury: Jury | None = None,
    noise: float = NOISE,
    seed: int = 0,
) -> dict[str, float]:
    """Layer name → loss of the noisy network per relative variance of noise in its pre-activations.

    Each channel becomes mean + sqrt(1 − noise) · (z − mean) + sqrt(noise) · std · normal, with
    mean and std over the batch, so that its mean and variance are kept: what variance matching
    leaves of a damaged layer looks like this. One forward pass over the batches per layer.

    Parameters
    ----------
    dense
        The dense network; unchanged. A copy of it is held.
    batches
        Unlabelled inputs.
    layers
        Its layers.
    jury
        Who judges its outputs; by default as names and shapes suggest.
    noise
        Relative variance of the noise, in (0, 1).
    seed
        Of the noise.

    Returns
    -------
    dict
        For class scores KL(dense ‖ noisy) in nats; at least 0 up to rounding.
    """
    reference = Reference(dense, batches, jury)
    noisy = copy.deepcopy(dense)
    found: dict[str, float] = {}
    with progress_bar("sensitivity", len(layers)) as advance:
        for layer in layers:
            disturb = _disturbing(noise, torch.Generator().manual_seed(seed))
            with LayerCalls(noisy, [layer], after=disturb):
                found[layer.name] = reference.agreement(noisy).loss / noise
            advance()
    return found


def _disturbing(
    noise: float, generator: torch.Generator
) -> Callable[[Layer, Call, Tensor], Tensor]:
    def disturb(layer: Layer, called: Call, z: Tensor) -> Tensor:
        columns, shape = channel_last(called.geometry, z).float(), channel_shape(layer)
        mean = columns.mean(dim=0)
        spread = (columns - mean).square().mean(dim=0).sqrt()
        mean, spread = mean.reshape(shape), spread.reshape(shape)
        # Drawn on the CPU: the same noise on every device.
        normal = torch.randn(z.shape, generator=generator).to(z.device)
        kept = (1 - noise) ** 0.5 * (z.float() - mean)
        disturbed: Tensor = mean + kept + noise**0.5 * spread * normal
        return disturbed.to(z.dtype)

    return disturb
