"""Cells on a Ray cluster: Ray schedules, places and retries; here tasks are only named."""

from __future__ import annotations

import hashlib
import importlib
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from sparsemend.errors import SparsemendError
from sparsemend.sweeps.bench import Bench, Compute, Outcomes
from sparsemend.sweeps.inputs import Network
from sparsemend.sweeps.records import Failure, Record, Task
from sparsemend.sweeps.shipping import pack, unpack

# How often Ray computes a cell again whose worker or machine died.
RETRIES = 3
_CONNECT_SECONDS = 10


def on_ray(address: str) -> Compute:
    """Compute tasks on a Ray cluster, one CPU each.

    Parameters
    ----------
    address
        Of the cluster, as ``"ray://host:10001"``; ``"auto"`` for the one that runs on this
        machine, else a new one here; ``"local"`` for a new one here.

    Raises
    ------
    SparsemendError
        If Ray is not installed.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise SparsemendError(
            "a sweep on a Ray cluster needs the package 'ray', which is not installed",
            fix="pip install 'sparsemend[ray]'",
        ) from error

    def compute(networks: Sequence[Network], tasks: Sequence[Task]) -> Outcomes:
        own = not ray.is_initialized()
        if own:
            _connect(ray, address)
        try:
            packed = pack(networks)
            key = hashlib.sha256(packed).hexdigest()
            # In a list, so that only a worker without this bench fetches it.
            packed_ref = [ray.put(packed)]
            remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_compute)
            running = {remote.remote(packed_ref, key, task): task for task in tasks}
            while running:
                done, _ = ray.wait(list(running), num_returns=1)
                task = running.pop(done[0])
                yield _outcome(ray, done[0], task)
        finally:
            if own:
                ray.shutdown()

    return compute


def _outcome(ray: Any, reference: Any, task: Task) -> Record | Failure:
    """What a task gave; raises what loading the networks raised, if it did."""
    try:
        outcome: Record | Failure = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from None
    except ray.exceptions.RayError as error:
        name = type(error).__name__
        return Failure(task.cell, f"Ray gave up on it ({name})", task.settings)
    return outcome


def _connect(ray: Any, address: str) -> None:
    try:
        _require_answer(address)
        ray.init(
            address=None if address == "auto" else address,
            log_to_driver=False,
            logging_level="error",
        )
    except (OSError, ValueError) as error:
        raise SparsemendError(
            f"there is no Ray cluster that answers ({error})",
            address,
            "the address of a cluster, 'auto' or 'local'",
        ) from error


def _require_answer(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself would go on trying for many minutes."""
    where = urlsplit(address if "//" in address else f"//{address}")
    if where.hostname is not None and where.port is not None:
        socket.create_connection((where.hostname, where.port), timeout=_CONNECT_SECONDS).close()


_benches: dict[str, Bench] = {}  # of a Ray worker process, which Ray uses for many tasks


def _compute(packed_ref: list[Any], key: str, task: Task) -> Record | Failure:
    if key not in _benches:
        ray = importlib.import_module("ray")
        _benches.clear()
        _benches[key] = unpack(ray.get(packed_ref[0]))
    return _benches[key].compute(task)
