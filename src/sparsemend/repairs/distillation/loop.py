"""Steps of gradient descent on the kept weights, towards what the dense network says.

The loss of a step is the judges' (KL of class probabilities, relative error, cosine) on the
outputs, plus the error of the sums inside the network where shortcuts join. Inputs are changed
without labels, and the dense network is asked on the same ones. Normalisations keep their running
statistics, dropout is off, and padding does not count. The learning rate rises over the first
twentieth and then falls along a cosine.

Held in memory: two copies of the network, three of what is trained (itself and Adam's moments), one
of the best so far, and the activations of one piece of a batch, as for a step of training.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import count

import torch
from torch import Tensor, nn

from sparsemend.errors import SparsemendError, raised_by
from sparsemend.evaluation import loss_factors
from sparsemend.execution.batches import Batch, batch_size, call, cut, evaluation_mode, padding_of
from sparsemend.execution.interrupts import note_interrupt
from sparsemend.progress import progress_bar
from sparsemend.repairs.distillation.features import SeenSums, feature_error
from sparsemend.repairs.distillation.inputs import drawn
from sparsemend.repairs.distillation.precision import half_pays
from sparsemend.repairs.distillation.settings import DistillSettings
from sparsemend.repairs.distillation.trained import Trained
from sparsemend.session import Session

# Learning rate up to so many trained values, and how it falls with their square root beyond; best
# on ResNet-20 at 0.9 (27,000), and right for networks with a hundred times as many.
_RATE, _RATE_UP_TO, _LEAST_RATE = 5e-3, 27_000, 2e-4
# In fewer steps than these a network would not come back from so large a rate; from one up to the
# second it does (all-MiniLM-L6-v2 in 60, where a tenth of it moved next to nothing).
_FULL_STEPS, _SHORT_RATE = 400, 5e-4
_WARM = 0.05
# Outputs of one piece of a batch, whose losses are taken in float64.
_MOST_OUTPUTS = 1 << 24
# Batches from which the units of relative losses are taken.
_UNIT_BATCHES = 8


def distill(
    session: Session,
    network: nn.Module,
    masks: Mapping[str, Tensor],
    settings: DistillSettings,
) -> None:
    """Train a sparse network in place; what the held-out inputs judge best on the way is kept.

    The judged loss therefore never rises. An interrupt (Ctrl-C) ends it with the best so far.

    Parameters
    ----------
    session
        The dense network and its inputs: steps see what repairs see, the judge the others.
    network
        The sparse network.
    masks
        Layer name → boolean tensor of the stored weight's shape: where weights are kept.
    settings
        How long and how.

    Raises
    ------
    SparsemendError
        If no gradient of the loss reaches what is trained.
    """
    student = copy.deepcopy(network)
    narrow = any(p.dtype in (torch.float16, torch.bfloat16) for p in student.parameters())
    if narrow:
        student = student.float()
    run = _Run(session, student, Trained(student, session.layers, masks), settings)
    before = session.reference.agreement(network).loss
    found = run.best(before)
    if found is None:
        return
    earlier = {name: p.detach().clone() for name, p in _chosen(network, found).items()}
    _assign(network, found)
    # A network in half precision may be worse than its copy that was trained.
    if narrow and not session.reference.loss(lambda: network) < before:
        _assign(network, earlier)


def _chosen(network: nn.Module, names: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    return {name: p for name, p in network.named_parameters() if name in names}


def _assign(network: nn.Module, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in _chosen(network, values).items():
            parameter.copy_(values[name])


class _Run:
    """One distillation."""

    def __init__(
        self, session: Session, student: nn.Module, trained: Trained, settings: DistillSettings
    ) -> None:
        self._session, self._student, self._trained = session, student, trained
        self._settings, self._dense = settings, session.model
        self._features = settings.feature_weight > 0
        self._half = half_pays(session.device, trained.count)
        self._piece = settings.batch
        self._start = time.perf_counter()

    def best(self, loss: float) -> dict[str, Tensor] | None:
        """The trained values that are judged best; None where none is below a loss."""
        found: dict[str, Tensor] | None = None
        settings, label = self._settings, "distill"
        total = settings.steps if math.isfinite(settings.steps) else None
        with (
            evaluation_mode(self._student, self._dense),
            progress_bar(f"{label}, {loss:.4f}", total) as advance,
        ):
            self._factors = loss_factors(
                self._session.jury, self._dense, self._session.seen[:_UNIT_BATCHES]
            )
            try:
                for judged in self._steps():
                    advance()
                    if judged is not None and judged < loss:
                        loss, found = judged, self._trained.values()
                        advance(f"{label}, {loss:.4f}", None)
            except KeyboardInterrupt:
                note_interrupt()
        return found

    def _steps(self) -> Iterator[float | None]:
        """Take the steps; the judged loss after those that are judged."""
        settings, parameters = self._settings, list(self._trained.parameters.values())
        optimiser, values = torch.optim.Adam(parameters), self._trained.count
        generator = torch.Generator().manual_seed(settings.seed)
        batches = drawn(self._session.seen, settings.batch, generator)
        judged = 0
        for step in count():
            done = self._done(step)
            if done >= 1:
                break
            rate = settings.rate or _rate(values, self._all(step))
            for group in optimiser.param_groups:
                group["lr"] = rate * _shape(done, step)
            if not self._gradients(self._session.layout(next(batches))):
                return  # the numbers have run away; the best so far is kept
            self._trained.mask_gradients()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            self._trained.settle()
            due = math.floor(self._done(step + 1) * settings.judgements)
            yield self._judge() if judged < due < settings.judgements else None
            judged = max(judged, due)
        yield self._judge()

    def _judge(self) -> float:
        """Loss on the held-out inputs; infinite where outputs are no numbers."""
        return self._session.reference.loss(lambda: self._student)

    def _all(self, step: int) -> float:
        """How many steps there will be, of a time about."""
        if math.isfinite(self._settings.steps):
            return self._settings.steps
        return max(1, step) / max(self._done(step), 1e-9)

    def _done(self, step: int) -> float:
        """The share of the work that is done."""
        elapsed = time.perf_counter() - self._start
        return max(step / self._settings.steps, elapsed / self._settings.seconds)

    def _gradients(self, batch: Batch) -> bool:
        """Gradients of the loss on a batch, piece by piece; whether they are finite."""
        size, total = batch_size(batch), 0.0
        start = 0
        while start < size:
            piece = cut(batch, start, start + self._piece) if self._piece < size else batch
            try:
                loss = self._loss(piece)
                if loss is None:  # too large at once
                    continue
                share = batch_size(piece) / size
                loss.backward(loss.new_tensor(share))
            except torch.OutOfMemoryError:
                if self._piece <= 1:
                    raise
                self._piece = max(1, min(self._piece, size) // 2)
                torch.cuda.empty_cache()
                continue
            except RuntimeError as error:  # such as of what the network changes in place
                raise _no_gradient(f": {raised_by(error, name=False)}") from error
            total += share * float(loss.detach())
            start += batch_size(piece)
        return math.isfinite(total)

    def _loss(self, batch: Batch) -> Tensor | None:
        """The loss on some inputs; None where fewer of them have to be taken."""
        jury, size = self._session.jury, batch_size(batch)
        wanted, joins = self._run(self._dense, batch)
        expected = jury.read(wanted, batch)
        outputs = sum(part.numel() for part in expected if isinstance(part, Tensor))
        if outputs > _MOST_OUTPUTS and size > 1:
            self._piece = max(1, min(size // 2, size * _MOST_OUTPUTS // outputs))
            return None
        with torch.enable_grad():
            present, own_joins = self._run(self._student, batch)
            losses = jury.losses(expected, jury.read(present, batch))
            factors = zip(self._factors, losses, strict=True)
            sums = [factor * found.sum() / len(losses[0]) for factor, found in factors]
            loss = torch.stack(sums).sum()
            if self._features:
                error = feature_error(joins, own_joins, padding_of(batch))
                self._features = error is not None
                if error is not None:
                    loss = loss + self._settings.feature_weight * error
        if not loss.requires_grad:
            raise _no_gradient()
        return loss

    def _run(self, network: nn.Module, batch: Batch) -> tuple[object, list[Tensor]]:
        seen = SeenSums()
        device = self._session.device.type
        half = torch.autocast(device, torch.bfloat16) if self._half else nullcontext()
        recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
        # cuDNN cannot differentiate a recurrent network that is not in training mode.
        plain = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
        with half, plain:
            if not self._features:
                return call(network, batch), []
            with seen:
                output = call(network, batch)
        return output, seen.found


def _no_gradient(why: str = "") -> SparsemendError:
    return SparsemendError(
        f"no gradient of the loss reaches the weights{why}",
        fix="distill a network and a judge that PyTorch can differentiate",
    )


def _rate(values: int, steps: float) -> float:
    """The largest learning rate for so many trained values, where there are so many steps."""
    largest = max(_LEAST_RATE, _RATE * min(1.0, math.sqrt(_RATE_UP_TO / max(1, values))))
    return max(min(largest, _SHORT_RATE), largest * min(1.0, steps / _FULL_STEPS))


def _shape(done: float, step: int) -> float:
    """The learning rate as a share of the largest."""
    falling = (1 + math.cos(math.pi * done)) / 2
    return falling * min(1.0, max(done, (step + 1) / 1000) / _WARM)
