"""Inputs whose drawing kills the process that draws them, where that is wanted."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsemend.sweeps import GivenInputs, Network

FIRST, ALWAYS = 1, 2  # seeds of which the first worker, or every one, dies


@dataclass(frozen=True)
class MortalDraw:
    """Calibration inputs of a seed; notes the process in ``folder`` and may end it.

    The process that made this object survives everything.
    """

    folder: Path
    survivor: int

    def __call__(self, seed: int) -> list[Tensor]:
        if os.getpid() != self.survivor:
            earlier = list(self.folder.glob(f"{seed}-*"))
            (self.folder / f"{seed}-{len(earlier)}-{os.getpid()}").touch()
            if seed == ALWAYS or (seed == FIRST and not earlier):
                os.kill(os.getpid(), signal.SIGKILL)
        generator = torch.Generator().manual_seed(seed)
        return list(torch.randn(5, 32, 12, generator=generator))


def mortal_network(folder: Path) -> Network:
    torch.manual_seed(0)
    layers = [nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)]
    model = nn.Sequential(*layers).eval()
    labelled = [(torch.randn(50, 12), torch.arange(50) % 4)]
    draw = MortalDraw(folder, os.getpid())
    return Network("mortal", model, GivenInputs(draw, labelled=labelled))
