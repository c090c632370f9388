"""What a compression did, as far as it has to be known to do exactly the same again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsemend.allocation import Allocation
from sparsemend.checks import check_int
from sparsemend.errors import SparsemendError
from sparsemend.files import read_file, read_json
from sparsemend.recipe.defaults import PATTERN
from sparsemend.repairs import EFFORTS


@dataclass(frozen=True)
class Plan:
    """The choices of a compression that was planned for a time.

    ``sm.compress(model, batches, sparsity, plan=result.plan)`` with the same inputs gives the same
    network, whatever the machine and however busy it is.

    Attributes
    ----------
    allocation
        Exact kept counts.
    mask, repair, scope
        As of :func:`sparsemend.compress`; the repair is the ending that was kept.
    effort
        How much work a reconstruction was: ``"full"`` or ``"quick"``.
    inputs
        How many of the calibration inputs the repair saw, the first ones.
    distill
        Steps of a distillation at the end; None where there was none.
    pattern
        Which weights could be kept.
    trials
        Rule → loss on the held-out inputs of the quick repairs that chose the rule; empty where
        there was none.
    note
        What was intended, in words, and what more time would bring.
    """

    allocation: Allocation
    mask: str
    repair: str
    scope: str
    effort: str
    inputs: int
    distill: int | None = None
    pattern: str = PATTERN
    trials: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        if self.effort not in EFFORTS:
            raise SparsemendError("unknown effort", self.effort, ", ".join(EFFORTS))
        check_int("inputs of the plan", self.inputs)
        if self.distill is not None:
            check_int("distill of the plan", self.distill)
        for name, kind, allowed in (
            *((name, str, "a text") for name in ("mask", "repair", "scope", "pattern", "note")),
            ("trials", Mapping, "losses by rule"),
        ):
            value: object = getattr(self, name)
            if not isinstance(value, kind):
                raise SparsemendError(f"{name} of the plan is of the wrong kind", value, allowed)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "allocation": self.allocation.to_dict(),
            "mask": self.mask,
            "repair": self.repair,
            "scope": self.scope,
            "effort": self.effort,
            "inputs": self.inputs,
            "distill": self.distill,
            "pattern": self.pattern,
            "trials": dict(self.trials),
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """From what :meth:`to_dict` gave.

        Raises
        ------
        SparsemendError
            If it is no plan.
        """
        try:
            allocation = Allocation.from_dict(values["allocation"])
            return cls(**{**values, "allocation": allocation})
        except (KeyError, TypeError) as error:
            raise SparsemendError(
                "this is no plan", str(error), "the 'plan' of what compress --json printed"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """From a file of a plan, or of what ``sparsemend compress --json`` printed.

        Raises
        ------
        SparsemendError
            If there is no such file, or it holds no plan.
        """
        return read_file(Path(path), "plan", lambda file: cls._found(read_json(file)))

    @classmethod
    def _found(cls, content: Any) -> Plan:
        found = content.get("plan", content) if isinstance(content, dict) else None
        if not isinstance(found, dict):
            raise SparsemendError(
                "there is no plan in it",
                allowed="what compress --json printed without a rule and a repair",
            )
        return cls.from_dict(found)

    def __str__(self) -> str:
        effort = "" if self.effort == "full" else f"{self.effort} "
        return (
            f"rule {self.allocation.rule}, {effort}repair {self.repair} on {self.inputs:,} inputs"
        )
