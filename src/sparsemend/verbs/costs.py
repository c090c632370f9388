"""How long the steps of a compression take on this machine: measured on a few inputs, extrapolated.

A reconstruction passes over the inputs, which costs the more the more there are, and solves for
every layer, which does not; the first is measured on a few inputs, the second counted in
multiply-adds, whose rate is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from sparsemend.calibration import gather_moments
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import (
    Batch,
    call,
    count_inputs,
    evaluation_mode,
    first_inputs,
)
from sparsemend.layers import Layer
from sparsemend.repairs import FitSettings
from sparsemend.session import Session
from sparsemend.solvers import ShiftedInverses

# Few inputs, and so many more, from which the marginal cost of one follows.
_FEW, _MORE = 4, 8
# Widths of the product and of the matrix to invert whose rates are measured, at most: large ones
# are faster.
_WIDTH, _INVERTED = 1024, 2048
# What a step takes besides what is counted.
_OVERHEAD = 1.1
# Multiply-adds of conjugate gradients, or of a factorisation, as ``solvers/least_squares.py``
# weighs them.
_ITERATIONS, _FACTORISED, _GATHERED = 100, 8, 700


@dataclass(frozen=True)
class Costs:
    """What a network costs here.

    Attributes
    ----------
    forward
        Seconds of a forward pass, per input.
    moments
        Seconds to add up the second moments of all layers' inputs, per input.
    product
        Seconds per multiply-add of large products.
    inversion
        Seconds per d³ of what has to be known of the inverse of a d × d matrix.
    cuts
        Whether the network runs on a part of a batch; some are made for batches of one size.
    """

    forward: float
    moments: float
    product: float
    inversion: float
    cuts: bool = True

    @classmethod
    def measure(cls, session: Session) -> Costs:
        """Measure on a few of the session's inputs."""
        few = first_inputs(session.seen, _FEW)
        more = first_inputs(session.seen, _FEW + _MORE)
        cuts = _runs(session, few)
        if not cuts:
            few, more = session.seen[:1], session.seen[:2]
        device = session.device

        def forward(batches: Sequence[Batch]) -> None:
            with evaluation_mode(session.model):
                for batch in batches:
                    call(session.model, session.layout(batch))

        def moments(batches: Sequence[Batch]) -> None:
            gather_moments(session.model, list(batches), session.layers)

        widest = max(64, *(layer.fan_in for layer in session.layers))
        width, inverted = min(_WIDTH, widest), min(_INVERTED, widest)
        factor, matrix = (torch.eye(size, device=device) + 0.1 for size in (width, inverted))
        product = _timed(lambda: factor @ factor, device)
        inverse = _timed(lambda: ShiftedInverses(matrix.unsqueeze(0)).solver(1.0), device)
        return cls(
            forward=_marginal(forward, few, more, device),
            moments=_marginal(moments, few, more, device),
            product=product / width**3,
            inversion=inverse / inverted**3,
            cuts=cuts,
        )

    def reconstruction(
        self, layers: Sequence[Layer], sparsity: float, inputs: int, settings: FitSettings
    ) -> float:
        """Seconds of one ``reconstruct`` of so many inputs."""
        refits = 1 + settings.refits
        # Targets of every refit take a pass of the layer and a cross moment, rows wide.
        shares = [layer.rows / layer.groups / layer.fan_in for layer in layers]
        cross = min(1.0, sum(shares) / len(shares)) if shares else 0.0
        passes = self.moments * (1 + refits * cross) + self.forward * (3 + refits)
        solving = sum(self._layer(layer, sparsity, settings) for layer in layers)
        return _OVERHEAD * (inputs * passes + solving)

    def matching(self, inputs: int) -> float:
        """Seconds of one ``variance`` of so many inputs."""
        return _OVERHEAD * inputs * 6 * self.forward

    def training(self, batch: int) -> float:
        """Seconds of one step of a distillation: both networks forward, one backward."""
        return _OVERHEAD * batch * 5 * self.forward

    def judging(self, inputs: int) -> float:
        """Seconds to compare outputs on so many inputs."""
        return _OVERHEAD * inputs * self.forward

    def _layer(self, layer: Layer, sparsity: float, settings: FitSettings) -> float:
        """Seconds to choose a layer's weights and solve for their values."""
        width, rows = layer.fan_in, layer.rows
        sweeps = sum(s.iterations + s.settle for s in settings.schedules)
        shared = {rho for schedule in settings.schedules for rho in schedule.penalties}
        choice = self.product * sweeps * rows * width**2
        choice += self.inversion * len(shared) * layer.groups * width**3
        kept = width * (1 - sparsity)
        exact = rows * (_FACTORISED * kept**3 / 3 + _GATHERED * kept**2)
        # In float64, of half the rate.
        solving = 2 * self.product * min(exact, 2 * _ITERATIONS * rows * width**2)
        return choice + (1 + settings.refits) * solving


def _runs(session: Session, batches: Sequence[Batch]) -> bool:
    try:
        with evaluation_mode(session.model):
            call(session.model, batches[0])
    except SparsemendError:
        return False
    return True


def _marginal(
    work: Callable[[Sequence[Batch]], None],
    few: Sequence[Batch],
    more: Sequence[Batch],
    device: torch.device,
) -> float:
    """Seconds of one more input; what is paid once does not count."""
    counts = count_inputs(few), count_inputs(more)
    times = [_timed(lambda: work(few), device), _timed(lambda: work(more), device)]
    if counts[0] == counts[1]:
        return times[1] / counts[1]
    # Where once dominates, or the machine was busy, the difference says nothing.
    return max((times[1] - times[0]) / (counts[1] - counts[0]), 0.1 * times[1] / counts[1])


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of a run, after one to warm up."""
    work()
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
