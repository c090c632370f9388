"""Times of one network on several engines."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsemend.boundary import HasModel, network_of, public
from sparsemend.checks import check_int
from sparsemend.errors import SparsemendError, did_you_mean
from sparsemend.execution.batches import Batch, call, describe, evaluation_mode
from sparsemend.execution.threads import thread_count
from sparsemend.exports import export
from sparsemend.exports.exporting import dense_size
from sparsemend.finite import check_outputs
from sparsemend.timing.engines import ENGINES, SPARSE, Engine, Run, Subject
from sparsemend.timing.machine import describe_machine, has_amx

SECONDS = 5.0
CLOCKS: Mapping[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "cpu": time.process_time,
}
"""Wall-clock time, or CPU time of the process: on a busy machine the first counts others' work."""
_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """Median times of one network, and its sizes.

    Attributes
    ----------
    milliseconds
        Engine → median time of one batch.
    failed
        Engine → why it could not run the network.
    batch
        Shapes of the batch.
    threads
        That every engine had.
    rounds
        Runs of each engine; they took turns.
    density
        Kept fraction of the weights of convolutions and linear layers.
    dense_bytes, packed_bytes
        Of the parameters in memory, and of the packed file in float16; None where it cannot be
        packed.
    machine
        Where it was measured.
    clock
        ``"wall"`` or ``"cpu"``, whose time it is.
    """

    milliseconds: Mapping[str, float]
    failed: Mapping[str, str]
    batch: str
    threads: int
    rounds: int
    density: float
    dense_bytes: int
    packed_bytes: int | None
    machine: str
    clock: str = "wall"

    @property
    def speedup(self) -> float | None:
        """The fastest other engine's time over ours; None if there is no other or not ours."""
        others = [ms for name, ms in self.milliseconds.items() if name != SPARSE]
        if not others or SPARSE not in self.milliseconds:
            return None
        return min(others) / self.milliseconds[SPARSE]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "milliseconds": dict(self.milliseconds),
            "failed": dict(self.failed),
            "speedup": self.speedup,
            "batch": self.batch,
            "threads": self.threads,
            "rounds": self.rounds,
            "density": self.density,
            "dense_bytes": self.dense_bytes,
            "packed_bytes": self.packed_bytes,
            "machine": self.machine,
            "clock": self.clock,
            "amx": has_amx(),
        }

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        lines = [
            f"{self.batch}, {threads}, {100 * self.density:.2f} % of the weights, {self.machine}; "
            f"medians of {self.rounds} rounds, {self.clock} time"
        ]
        ours = self.milliseconds.get(SPARSE)
        for name, ms in self.milliseconds.items():
            ratio = "" if ours is None or name == SPARSE else f"{ms / ours:8.2f} x ours"
            lines.append(f"{name:<18}{ms:10.3f} ms{ratio}")
        lines += [f"{name:<18}{'-':>10}    {why}" for name, why in self.failed.items()]
        sizes = f"dense {self.dense_bytes / 1024:,.1f} KiB"
        if self.packed_bytes is not None:
            share = 100 * self.packed_bytes / max(self.dense_bytes, 1)
            sizes += f", packed {self.packed_bytes / 1024:,.1f} KiB ({share:.2f} %)"
        lines.append(sizes)
        if has_amx():
            lines.append(
                "this machine has AMX: dense bfloat16 can be as fast as sparse float32 there"
            )
        return "\n".join(lines)


@public
def bench(
    network: nn.Module | HasModel,
    example: Batch,
    *,
    threads: int = 1,
    seconds: float = SECONDS,
    engines: Sequence[str] | None = None,
    clock: str = "wall",
) -> Timing:
    """Time a network on the sparse runtime and on dense ones.

    The engines take turns in one process, so that what else runs on the machine slows all of them.
    In its turn an engine runs twice, and the second run counts: the first finds the caches full of
    what the engine before it left.

    Parameters
    ----------
    network
        A sparse network, or a result of ``compress``; not changed.
    example
        The batch to run.
    threads
        For every engine.
    seconds
        About how long to measure; at least three rounds are.
    engines
        Names of those to time; by default all that are installed, without ``"torch.compile"``,
        which takes long to get ready.
    clock
        ``"wall"``, or ``"cpu"``: CPU time of the process, for one thread on a machine that is busy
        with other things.

    Raises
    ------
    SparsemendError
        For an unknown engine or clock, arguments out of range, a network that cannot run on the
        batch, or outputs that are NaN.
    """
    threads = check_int("threads", threads)
    if not 0 < seconds < math.inf:
        raise SparsemendError("seconds is out of range", seconds, "a positive, finite number")
    if clock not in CLOCKS:
        raise SparsemendError("unknown clock", clock, ", ".join(CLOCKS))
    chosen = _engines(engines)
    model = network_of(network)
    run = partial(call, model, example)
    with thread_count(threads), evaluation_mode(model):
        for part in tree_leaves(run()):
            if isinstance(part, Tensor):  # NaN would be timed as if it were numbers
                check_outputs(model, part, run)
        runs, failed = _start(chosen, Subject(model, example, threads))
        taken = _take_turns(runs, seconds, CLOCKS[clock])
        packed = _packed_size(model, example)
    return Timing(
        milliseconds={name: 1e3 * statistics.median(times) for name, times in taken.items()},
        failed=failed,
        batch=describe(example),
        threads=threads,
        rounds=min(map(len, taken.values()), default=0),
        density=_density(model),
        dense_bytes=dense_size(model),
        packed_bytes=packed,
        machine=describe_machine(),
        clock=clock,
    )


def _engines(names: Sequence[str] | None) -> list[Engine]:
    if names is None:
        return [each for each in ENGINES.values() if each.is_there and each.fits()
                and not each.slow]  # fmt: skip
    for name in names:
        if name not in ENGINES:
            hint = did_you_mean(name, ENGINES)
            raise SparsemendError("unknown engine", name, ", ".join(ENGINES), hint)
        if not ENGINES[name].is_there:
            raise SparsemendError(
                f"engine {name!r} is not installed", fix=f"pip install {ENGINES[name].needs}"
            )
    return [ENGINES[name] for name in ENGINES if name in names]


def _start(engines: Sequence[Engine], subject: Subject) -> tuple[dict[str, Run], dict[str, str]]:
    """What is ready to run, and why the rest is not."""
    runs, failed = {}, {}
    for engine in engines:
        try:
            run = engine.start(subject)
            run()
        # Exporters and compilers of others raise whatever they like.
        except Exception as error:
            if engine.name == SPARSE:
                raise
            failed[engine.name] = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
        else:
            runs[engine.name] = run
    return runs, failed


def _take_turns(
    runs: Mapping[str, Run], seconds: float, now: Callable[[], float]
) -> dict[str, list[float]]:
    """Times of every engine; a turn begins with a run that is not timed."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    end = time.monotonic() + seconds
    rounds = 0
    while runs and (rounds < _ROUNDS or time.monotonic() < end):
        for name, run in runs.items():
            run()  # caches are then its own, and not the last engine's
            start = now()
            run()
            taken[name].append(now() - start)
        rounds += 1
    return taken


def _packed_size(model: nn.Module, example: Batch) -> int | None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return export(model, Path(folder) / "network.packed", example=example).size
        except SparsemendError:
            return None


def _density(model: nn.Module) -> float:
    weights = [p for p in model.parameters() if p.dim() > 1]
    kept = sum(int(p.count_nonzero()) for p in weights)
    return kept / max(sum(p.numel() for p in weights), 1)
