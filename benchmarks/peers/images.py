"""Trained classifiers of the data folder: KL and top-1."""

from __future__ import annotations

from pathlib import Path

from torch import nn

import sparsemend as sm
from benchmarks import _network
from benchmarks.peers._problem import Figure, Problem

HELDOUT = 1000


def load(data: Path, network: str, calibration_size: int, seed: int) -> Problem:
    """A network of the folder with its calibration, held-out and test images."""
    dense, images = _network.load(data, network)
    heldout = images.heldout(HELDOUT, calibration_size=calibration_size, seed=seed).split(250)
    test = list(images.test_batches(500))

    def measure(model: nn.Module) -> dict[str, float]:
        return {
            "kl": sm.agreement(model, dense, heldout).kl,
            "top1": sm.evaluate(model, test, progress=False).top1,
        }

    return Problem(
        dense,
        images.calibration(calibration_size, seed=seed).split(128),
        heldout,
        "global",
        {"kl": Figure("KL", "{:.2f}".format), "top1": Figure("top-1", lambda x: f"{100 * x:.1f}")},
        measure,
        ("sparsegpt", "obc", "obc-sequential", "reconstruct"),
        best="top1",
    )
