"""What is tried with an architecture, and what came of it."""

from __future__ import annotations

import copy
import hashlib
import resource
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

import sparsemend as sm
from benchmarks.zoo.subject import Subject
from sparsemend.layers import LayerSet, layer_weight

SPARSITY = 0.8


def attempt(subject: Subject, *, mask: str) -> Iterator[dict[str, Any]]:
    """Coverage and two compressions of one architecture, as plain data, after every step."""
    model, batches = subject.build(), subject.batches()
    result: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    before = _digest(model)
    with _measured(result), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _refusing(result):
            layers = sm.discover(model, batches[0], batches[1:])
            coverage = layers.coverage
            result |= {
                "layers": len(layers),
                "share": coverage.share,
                "matrix": coverage.matrix,
                "left_out": {
                    reason: {part.parameter: part.count for part in parts}
                    for reason, parts in coverage.reasons().items()
                },
            }
            if coverage.share < 1:
                chosen = sm.discover(model, batches[0], batches[1:], include="embedding")
                result["share_with_embeddings"] = chosen.coverage.share
            for repair in ("variance", "reconstruct"):
                yield result
                result[repair] = _compress(model, batches, repair, layers, mask, subject.judge)
    result["warnings"] = sorted({str(w.message)[:300] for w in caught})
    result["unchanged"] = _digest(model) == before
    yield result


def _compress(
    model: nn.Module,
    batches: list[Any],
    repair: str,
    layers: LayerSet,
    mask: str,
    judge: Any,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with _measured(found), _refusing(found):
        mask = mask if repair == "reconstruct" else "magnitude"
        done = sm.compress(
            model, batches, SPARSITY, "erk", mask, repair, judge=judge, progress=False
        )
        sparse, allocation = done.model, done.allocation
        found |= {
            "added_biases": len(done.added_biases),
            "judge": done.agreement.judge,
            "loss": done.agreement.loss,
        }
        pruned_weights = allocation.total - allocation.kept
        zeros = sum(int((layer_weight(sparse, layer) == 0).sum()) for layer in layers)
        found |= {
            "kept": allocation.kept,
            "exact": allocation.kept == round(allocation.total * (1 - SPARSITY)),
            "masks": sum(int(m.sum()) for m in done.masks.values()) == allocation.kept,
            "zeros": zeros,
            "zeros_missing": max(0, pruned_weights - zeros),
            "zeros_more": max(0, zeros - pruned_weights),
        }
        values = sparse.state_dict()
        finite = all(v.isfinite().all() for v in values.values() if v.is_floating_point())
        found["finite"] = finite
        untouched = copy.deepcopy(model)
        try:
            untouched.load_state_dict(values, strict=True)
            found["strict"] = True
        except RuntimeError as error:
            found["strict"] = False
            found["load"] = str(error)[:300]
    return found


def _digest(model: nn.Module) -> str:
    """Of every byte of the state, and of which modules train."""
    total = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            total.update(name.encode())
            total.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    total.update(repr([(n, m.training) for n, m in model.named_modules()]).encode())
    return total.hexdigest()


@contextmanager
def _measured(into: dict[str, Any]) -> Iterator[None]:
    started, used = time.perf_counter(), time.process_time()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    into |= {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "peak_mib": round(peak),
    }


@contextmanager
def _refusing(into: dict[str, Any]) -> Iterator[None]:
    """A refusal is a result; anything else that is raised is a defect, and named as one."""
    try:
        yield
    except sm.SparsemendError as error:
        into["refused"] = str(error)[:600]
    except Exception as error:  # every other error is what this benchmark looks for
        into["defect"] = f"{type(error).__name__}: {error}"[:600]
