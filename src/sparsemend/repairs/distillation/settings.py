"""What a distillation may be told."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DistillSettings:
    """How long and how a distillation trains.

    Attributes
    ----------
    steps
        Number of steps; infinite where a time is given.
    seconds
        Wall-clock time after which no further step starts; other machines get another result.
    rate
        Largest learning rate of Adam; None for one by the number of weights that are trained.
    batch
        Most inputs of one step; of tokens about 1,024 come together, however many inputs that are.
    feature_weight
        What the error of sums inside the network counts beside that of the outputs.
    judgements
        How often closeness on held-out inputs is judged on the way.
    seed
        Draws inputs and their changes.
    """

    steps: float = 400
    seconds: float = math.inf
    rate: float | None = None
    batch: int = 128
    feature_weight: float = 5.0
    judgements: int = 10
    seed: int = 0

    def __str__(self) -> str:
        """Steps or time, as options say it."""
        return f"{self.steps:.15g}" if math.isfinite(self.steps) else f"{self.seconds:.15g}s"
