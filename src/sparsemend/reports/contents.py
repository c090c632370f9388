"""What a report is about: the results it shows, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsemend.allocation import Allocation
from sparsemend.diagnosis import Diagnosis
from sparsemend.errors import SparsemendError
from sparsemend.layers import Coverage
from sparsemend.patterns import FREE
from sparsemend.sweeps.records import Lead, Record, Transition
from sparsemend.timing import Timing
from sparsemend.verbs.compression import CompressionResult

# The density at which layers are compared in numbers and words is the nearest to this.
_SHOWN_DENSITY = 0.1
_CHOICES = ("rule", "mask", "repair", "scope")
# What those who called for a compression may know besides.
_CONTEXT = ("model", "tested", "out", "bytes", "next")
# What is not known without labels.
_ACCURACIES = ("top1_dense", "top1_pruned", "top1_repaired")


@dataclass(frozen=True)
class Compression:
    """A compression without its tensors.

    Attributes
    ----------
    allocation
        Exact kept counts.
    rule, mask, repair, scope
        The choices made.
    kl, agreement
        Closeness to the dense network: mean KL in nats, and the fraction of equal top-1 classes;
        None where outputs are no class scores.
    heldout
        Whether they were measured on inputs that the repair did not see.
    top1_dense, top1_pruned, top1_repaired
        Accuracies as fractions; None where they are not known.
    tried
        Repair → loss of every ending that was tried.
    seconds
        Stage → wall-clock seconds.
    added_biases
        Layers that got a bias parameter.
    judged
        Closeness to the dense network in words, also where outputs are no class scores.
    unshifted
        Layers that were repaired without a shift, for want of a bias.
    signal_ends
        Layers at which the signal ends, where the output does not depend on the input any more.
    coverage
        How much of the network its layers are; None where that was not kept.
    multiplications
        Layer → multiplications for one input of the dense network.
    target
        What it was to cost at most in the place of a sparsity, and what it does cost, in words;
        empty where a sparsity was asked for.
    note
        What was planned for a time, in words.
    timing
        How fast one input runs on the sparse runtime and on others, where that was measured.
    pattern
        Which weights could be kept.
    context
        What a result does not know and the page begins with: ``model``, ``tested``, ``out``,
        ``bytes``, ``next``, as of :func:`sparsemend.verbs.screen.first_screen`.
    """

    allocation: Allocation
    rule: str
    mask: str
    repair: str
    scope: str
    kl: float | None
    agreement: float | None
    heldout: bool
    top1_dense: float | None = None
    top1_pruned: float | None = None
    top1_repaired: float | None = None
    tried: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    added_biases: tuple[str, ...] = ()
    judged: str = ""
    unshifted: tuple[str, ...] = ()
    signal_ends: tuple[str, ...] = ()
    coverage: Coverage | None = None
    multiplications: Mapping[str, int] = field(default_factory=dict)
    target: str = ""
    note: str = ""
    timing: Timing | None = None
    pattern: str = FREE.name
    context: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, result: CompressionResult, **top1: float | None) -> Compression:
        """From a result; ``top1`` gives the accuracies, which a result does not know."""
        return cls.from_dict({**result.to_dict(), **top1})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Compression:
        """From what a result's ``to_dict`` gives, or ``sparsemend compress --json`` prints.

        Raises
        ------
        SparsemendError
            If something is missing or does not validate.
        """
        top1: dict[str, Any] = {key: values.get(key) for key in _ACCURACIES}
        coverage = values.get("coverage")
        try:
            made = cls(
                allocation=Allocation(values["counts"], values["sizes"], values["rule"]),
                tried=dict(values["tried"]),
                seconds=dict(values["seconds"]),
                added_biases=tuple(values["added_biases"]),
                unshifted=tuple(values.get("unshifted", ())),  # what earlier versions did not say
                signal_ends=tuple(values.get("signal_ends", ())),
                coverage=Coverage.from_dict(coverage) if coverage else None,
                multiplications=values.get("multiplications") or {},
                target=(values.get("target") or {}).get("text", ""),
                note=(values.get("plan") or {}).get("note", ""),
                judged=values.get("judged", ""),
                pattern=values.get("pattern", FREE.name),
                context={key: values[key] for key in _CONTEXT if key in values},
                **{key: values[key] for key in (*_CHOICES, "kl", "agreement", "heldout")},
                **top1,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, SparsemendError):
                raise
            raise SparsemendError(
                f"this is no result of compress ({type(error).__name__}: {error})"
            ) from error
        made._check()
        return made

    def _check(self) -> None:
        """Refuse what no compression gives: the values may come from any file."""
        shares = {key: getattr(self, key) for key in ("agreement", *_ACCURACIES)}
        losses = {"kl": self.kl, **{f"tried {key!r}": loss for key, loss in self.tried.items()}}
        held: object = self.heldout
        wrong: list[tuple[str, object, str]] = [
            (key, value, "a fraction in [0, 1], or null")
            for key, value in shares.items()
            if not (value is None or (_is_number(value) and 0 <= value <= 1))
        ]
        wrong += [
            (key, value, "a finite number, 0 or more, or null")
            for key, value in losses.items()
            if not (value is None or (_is_number(value) and 0 <= value < math.inf))
        ]
        wrong += [
            (key, getattr(self, key), "a text")
            for key in (*_CHOICES, "judged", "target", "pattern")
            if not isinstance(getattr(self, key), str)
        ]
        if not isinstance(held, bool):
            wrong.append(("heldout", held, "true or false"))
        for key, value, allowed in wrong:
            raise SparsemendError(f"this is no result of compress: {key}", value, allowed)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Contents:
    """Everything one report shows; each part may be empty.

    Attributes
    ----------
    diagnoses
        Name (may be empty) → diagnosis.
    compression
        One compression.
    allocations
        Allocations of one network at one sparsity, by different rules.
    records, transitions, leads
        Of a sweep.
    """

    diagnoses: Mapping[str, Diagnosis] = field(default_factory=dict)
    compression: Compression | None = None
    allocations: tuple[Allocation, ...] = ()
    records: tuple[Record, ...] = ()
    transitions: tuple[Transition, ...] = ()
    leads: tuple[Lead, ...] = ()


def shown_density(diagnosis: Diagnosis) -> int:
    """Index of the density at which damage is shown: the nearest to 10 %."""
    return int(np.abs(diagnosis.densities - _SHOWN_DENSITY).argmin())
