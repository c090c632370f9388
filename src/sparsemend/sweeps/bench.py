"""Computing cells: what cells share is computed once, and kept for one network and seed."""

from __future__ import annotations

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

from sparsemend.errors import RAISED, SparsemendError, SparsemendWarning
from sparsemend.evaluation import evaluate, logits
from sparsemend.execution.batches import Batch, call, evaluation_mode
from sparsemend.execution.copies import copied
from sparsemend.masks import apply_masks
from sparsemend.progress import progress_shown
from sparsemend.sweeps.fingerprint import inputs_fingerprint, mask_fingerprint
from sparsemend.sweeps.inputs import Network
from sparsemend.sweeps.records import Failure, Record, Settings, Task
from sparsemend.verbs.compression import CompressionResult
from sparsemend.verbs.running import run_recipe
from sparsemend.verbs.settling import costed, settled

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
            with progress_shown(False), warnings.catch_warnings():
                # Whole channels die at high sparsities; in a grid of them that is no news.
                warnings.simplefilter("ignore", SparsemendWarning)
                return self._compute(task)
        except SparsemendError as error:
            return Failure(task.cell, str(error), task.settings)
        except RAISED as error:  # a solver or the user's network failed: other cells may not
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
        given = network.diagnosis if task.recipe.needs_diagnosis else None
        result = run_recipe(shared.session, task.recipe, diagnosis=given)
        target = cell.parsed_target
        if target is None:
            result = costed(result, shared.session, None)
        else:
            result = settled(result, shared.session, task.recipe, target)
        if result.search is not None and result.search.interrupted:
            raise KeyboardInterrupt  # half a search is no record of this budget
        if not math.isfinite(result.agreement.loss):
            raise SparsemendError("the repaired network's outputs are not finite")
        overall = shared.session.layers.coverage.sparsity(result.allocation.kept)
        return Record(
            cell=cell,
            achieved_sparsity=result.sparsity,
            top1_dense=judge.dense,
            top1_pruned=judge.pruned(result),
            top1_repaired=judge.accuracy(result.model),
            chance=shared.chance,
            kl=result.agreement.loss,
            agreement=result.agreement.top1,
            seconds=time.perf_counter() - start,
            versions=versions(),
            densities=dict(result.allocation.densities),
            kept_repair=result.repair,
            judged=result.agreement.judge,
            recovered=result.agreement.recovery,
            matrix_sparsity=overall["matrix"],
            parameter_sparsity=overall["parameters"],
            kept_multiplications=result.kept_multiplications,
            reached=result.reached,
            settings=task.settings,
        )


def in_process(networks: Sequence[Network], tasks: Sequence[Task]) -> Outcomes:
    """Compute tasks here, one after the other."""
    bench = Bench(networks)
    for task in tasks:
        yield bench.compute(task)


class _Shared:
    """The session of one seed, and what its inputs say of the dense network."""

    def __init__(self, network: Network, seed: int, settings: Settings) -> None:
        self._key = (network.name, seed, settings.inputs)
        seen, unseen = network.inputs.draw(seed)
        if inputs_fingerprint(seen, unseen) != settings.inputs:
            raise SparsemendError(
                f"the calibration inputs of seed {seed} are not those drawn before",
                fix="the function of the seed must return the same inputs every time",
            )
        self.session = network.session(seen, unseen or None)

    def fits(self, task: Task) -> bool:
        return self._key == (task.cell.network, task.cell.seed, task.settings.inputs)

    @cached_property
    def chance(self) -> float | None:
        session = self.session
        classes = count_classes(session.model, session.seen[0], session.criterion.output)
        return None if classes is None else 1 / classes


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
            pruned = copied(self.network.model)
            apply_masks(pruned, result.masks, result.layers)
            self._pruned[key] = self.accuracy(pruned)
        return self._pruned[key]

    def accuracy(self, model: nn.Module) -> float | None:
        batches = self._labelled()
        if batches is None:
            return None
        return evaluate(model, batches, output=self.network.criterion.output).top1

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


def count_classes(model: nn.Module, batch: Batch, output: str | int | None = None) -> int | None:
    """Number of classes that the network tells apart; None where it gives no class scores."""
    with evaluation_mode(model):
        found = call(model, batch)
    try:
        classes = int(logits(found, output).shape[1])
    except SparsemendError:
        return None
    return classes if classes > 1 else None


def versions() -> dict[str, str]:
    """What computes the cells here."""
    return {
        "sparsemend": version("sparsemend"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
