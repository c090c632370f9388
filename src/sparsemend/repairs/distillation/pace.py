"""How long a step of a distillation takes on this machine, by trying."""

from __future__ import annotations

import time

import torch

from sparsemend.execution.copies import copied
from sparsemend.execution.interrupts import interrupts_noted
from sparsemend.layers import layer_weights
from sparsemend.progress import progress_shown
from sparsemend.repairs.distillation.loop import distill
from sparsemend.repairs.distillation.settings import DistillSettings
from sparsemend.session import Session

_STEPS = 5


def step_seconds(session: Session) -> float:
    """Seconds of one step, from a few that train a copy of the dense network with all its weights.

    Raises
    ------
    SparsemendError
        If no gradient of the loss reaches the weights.
    KeyboardInterrupt
        If one came: steps that were not taken say nothing of their time.
    """
    weights = layer_weights(session.model, session.layers)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}

    def train(steps: int) -> float:
        network, start = copied(session.model), time.perf_counter()
        with interrupts_noted() as noted:
            distill(session, network, masks, DistillSettings(steps=steps, judgements=1))
        if noted.came:
            raise KeyboardInterrupt
        return time.perf_counter() - start

    with progress_shown(False):
        train(1)  # warms up
        once, several = train(1), train(1 + _STEPS)
        # On a busy machine the difference may say nothing.
        return max(several - once, 0.1 * several) / _STEPS
