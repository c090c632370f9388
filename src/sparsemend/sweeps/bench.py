"""Computing cells: what cells share is computed once, and kept for one network and seed."""

from __future__ import annotations

import copy
import math
import platform
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsemend.allocation import needs_diagnosis
from sparsemend.calibration import Calibration, calibrate
from sparsemend.diagnosis import Diagnosis, diagnose
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.evaluation import evaluate, logits
from sparsemend.execution.batches import Batch, call, evaluation_mode
from sparsemend.masks import NEEDS_CALIBRATION, apply_masks
from sparsemend.repairs import parse_repair
from sparsemend.search import AUTO, damage_curves
from sparsemend.sweeps.fingerprint import inputs_fingerprint, mask_fingerprint
from sparsemend.sweeps.inputs import Network
from sparsemend.sweeps.records import Cell, Failure, Record, Settings, Task
from sparsemend.verbs.compress import compress
from sparsemend.verbs.compression import CompressionResult

Outcomes = Generator[Record | Failure, None, None]
# Computes tasks somewhere and in any order; yields what each gave as soon as it is there.
Compute = Callable[[Sequence[Network], Sequence[Task]], Outcomes]

# Labelled batches up to this size are decoded once and held.
_HELD_BYTES = 1 << 29


class Bench:
    """Computes the cells of some networks.

    In memory: one network's labelled inputs where they are small, and one seed's calibration
    and diagnoses; so cells should come network by network and seed by seed.

    Parameters
    ----------
    networks
        By name.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = {network.name: network for network in networks}
        self._judge: _Judge | None = None
        self._shared: _Shared | None = None

    def compute(self, task: Task) -> Record | Failure:
        """The record of a cell, or why there is none."""
        try:
            with warnings.catch_warnings():
                # Whole channels die at high sparsities; in a grid of them that is no news.
                warnings.simplefilter("ignore", SparsemendWarning)
                return self._compute(task)
        except SparsemendError as error:
            return Failure(task.cell, str(error), task.settings)
        except Exception as error:  # a solver or the user's network failed: other cells may not
            return Failure(task.cell, f"{type(error).__name__}: {error}", task.settings)

    def _compute(self, task: Task) -> Record:
        start = time.perf_counter()
        cell = task.cell
        network = self._networks[cell.network]
        if self._judge is None or self._judge.network is not network:
            self._shared, self._judge = None, _Judge(network)
        if self._shared is None or not self._shared.fits(task):
            self._shared = None  # freed before the next is made
            self._shared = _Shared(network, cell.seed, task.settings)
        shared, judge = self._shared, self._judge
        given = network.diagnosis if needs_diagnosis(cell.rule) else None
        diagnoses = given is None and (cell.rule == AUTO or needs_diagnosis(cell.rule))
        needs_moments = diagnoses or cell.mask in NEEDS_CALIBRATION
        result = compress(
            network.model,
            shared.seen,
            cell.sparsity,
            cell.rule,
            cell.mask,
            cell.repair,
            scope=task.settings.scope,
            budget=task.settings.budget or None,
            heldout=shared.unseen or None,
            calibration=shared.calibration if needs_moments else None,
            diagnosis=shared.diagnosis(cell) if diagnoses else given,
            progress=False,
        )
        if not math.isfinite(result.agreement.kl):
            raise SparsemendError("the repaired network's outputs are not finite")
        return Record(
            cell=cell,
            achieved_sparsity=result.sparsity,
            top1_dense=judge.dense,
            top1_pruned=judge.pruned(result),
            top1_repaired=judge.accuracy(result.model),
            chance=1 / shared.num_classes,
            kl=result.agreement.kl,
            agreement=result.agreement.top1,
            seconds=time.perf_counter() - start,
            versions=versions(),
            densities=dict(result.allocation.densities),
            kept_repair=result.repair,
            settings=task.settings,
        )


def in_process(networks: Sequence[Network], tasks: Sequence[Task]) -> Outcomes:
    """Compute tasks here, one after the other."""
    bench = Bench(networks)
    for task in tasks:
        yield bench.compute(task)


class _Shared:
    """The inputs of one seed, and what is known of the dense network from them."""

    def __init__(self, network: Network, seed: int, settings: Settings) -> None:
        self._network, self._seed, self._settings = network, seed, settings
        self.seen, self.unseen = network.inputs.draw(seed)
        if inputs_fingerprint(self.seen, self.unseen) != settings.inputs:
            raise SparsemendError(
                f"the calibration inputs of seed {seed} are not those drawn before",
                fix="the function of the seed must return the same inputs every time",
            )
        self._diagnoses: dict[tuple[bool, str, str], Diagnosis] = {}

    def fits(self, task: Task) -> bool:
        mine = (self._network.name, self._seed, self._settings.inputs)
        return mine == (task.cell.network, task.cell.seed, task.settings.inputs)

    @cached_property
    def calibration(self) -> Calibration:
        return calibrate(self._network.model, self.seen, progress=False)

    def diagnosis(self, cell: Cell) -> Diagnosis:
        """As :func:`sparsemend.compress` diagnoses for a rule, mask and repair."""
        plan, searching = parse_repair(cell.repair), cell.rule == AUTO
        key = (searching, plan.diagnosis, cell.mask)
        if key not in self._diagnoses:
            model = self._network.model
            self._diagnoses[key] = (
                damage_curves(model, self.calibration, plan, cell.mask, progress=False)
                if searching
                else diagnose(
                    model, self.calibration, plan.diagnosis, mask=cell.mask, progress=False
                )
            )
        return self._diagnoses[key]

    @cached_property
    def num_classes(self) -> int:
        return count_classes(self._network.model, self.seen[0])


class _Judge:
    """Accuracies of one network and of what becomes of it; None without labels."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._held: list[Any] | None = None
        # Fingerprint of masks → accuracy: repairs, and often seeds, share their masks.
        self._pruned: dict[str, float | None] = {}

    @cached_property
    def dense(self) -> float | None:
        return self.accuracy(self.network.model)

    def pruned(self, result: CompressionResult) -> float | None:
        """Accuracy of the masks alone, before the repair."""
        key = mask_fingerprint(result.masks.items())
        if key not in self._pruned:
            pruned = copy.deepcopy(self.network.model)
            apply_masks(pruned, result.masks)
            self._pruned[key] = self.accuracy(pruned)
        return self._pruned[key]

    def accuracy(self, model: nn.Module) -> float | None:
        batches = self._labelled()
        return None if batches is None else evaluate(model, batches, progress=False).top1

    def _labelled(self) -> Iterable[Any] | None:
        """The labelled batches, held in memory where they are small."""
        if self._held is not None:
            return self._held
        batches = self.network.inputs.test()
        if batches is None:
            return None
        held, size = [], 0
        for batch in batches:
            held.append(batch)
            size += sum(leaf.nbytes for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))
            if size > _HELD_BYTES:
                return self.network.inputs.test()
        self._held = held
        return held


def count_classes(model: nn.Module, batch: Batch) -> int:
    """Number of classes that the network tells apart."""
    with evaluation_mode(model):
        return int(logits(call(model, batch)).shape[1])


def versions() -> dict[str, str]:
    """What computes the cells here."""
    return {
        "sparsemend": version("sparsemend"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
