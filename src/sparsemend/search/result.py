"""What a search for an allocation found, and how it explains itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparsemend.allocation import Allocation
from sparsemend.errors import printable


@dataclass(frozen=True)
class Trial:
    """An allocation that got the real repair; without training, if it is not a final one.

    Attributes
    ----------
    name
        The rule, or where it comes from.
    counts
        Kept weights of each layer.
    kl
        Loss on inputs that the repair did not see: of class scores KL(dense ‖ repaired) in nats.
    seconds
        Time since the search began.
    """

    name: str
    counts: tuple[int, ...]
    kl: float
    seconds: float


# Why a search ended that was interrupted.
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class AllocationSearch:
    """The allocation that a search chose, and why.

    Attributes
    ----------
    allocation
        The winner's exact counts.
    winner
        Its name: a plain rule, a mixture of rules, or how many steps or moves it is away from one.
    kl
        Its loss on the held-out inputs, with the real repair: of class scores KL in nats.
    trials
        All that got the real repair, in order; without training.
    plain
        The plain rules among them.
    proxies
        Number of trials with a cheap repair.
    repairs
        What the search cost, in repairs.
    seconds
        Wall-clock time.
    finished
        Why it ended.
    reference
        Layer → density under ERK, to compare with.
    label
        What the loss is called in texts.
    finals
        Where the repair trains, those of the trials that were trained; the winner is the closest
        of these.
    """

    allocation: Allocation
    winner: str
    kl: float
    trials: tuple[Trial, ...]
    plain: tuple[str, ...]
    proxies: int
    repairs: float
    seconds: float
    finished: str
    reference: Mapping[str, float] = field(default_factory=dict)
    label: str = "KL"
    finals: tuple[Trial, ...] = ()

    @property
    def interrupted(self) -> bool:
        """Whether an interrupt ended it before its time."""
        return self.finished == INTERRUPTED

    @property
    def plain_kl(self) -> dict[str, float]:
        """Plain rule → its loss, the closest first."""
        found = {trial.name: trial.kl for trial in self.trials if trial.name in self.plain}
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def __str__(self) -> str:
        repaired = len({trial.counts for trial in self.trials})
        lines = [
            f"auto chose {self.winner}: {self.label} {self.kl:.4f} on held-out inputs "
            f"({repaired} repairs and {self.proxies} cheaper trials, {self.finished})"
        ]
        tried = self.kl
        if self.finals:
            ended = (f"{final.name} {final.kl:.4f}" for final in self.finals)
            lines.append(f"after training: {', '.join(ended)}; without it:")
            best = min(self.finals, key=lambda final: final.kl)
            tried = next(trial.kl for trial in self.trials if trial.counts == best.counts)
        loss = "KL" if self.label == "KL" else "loss"
        lines.append(f"{'rule':<12} {loss:>8}  {'auto is lower by':>16}")
        for name, kl in self.plain_kl.items():
            lines.append(f"{name:<12} {kl:>8.4f}  {kl - tried:>16.4f}")
        if self.reference:
            names = {name: printable(name) for name in self.allocation}
            width = max(5, *map(len, names.values()))
            lines.append(f"{'layer':<{width}} {'density':>8} {'under erk':>9} {'ratio':>7}")
            for name, density in self.allocation.densities.items():
                other = self.reference[name]
                ratio = density / other
                lines.append(f"{names[name]:<{width}} {density:>8.4f} {other:>9.4f} {ratio:>6.2f}×")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; an infinite loss is null."""
        return {
            "winner": self.winner,
            "judged": self.label,
            "kl": _number(self.kl),
            "plain": {name: _number(kl) for name, kl in self.plain_kl.items()},
            "trials": [_plain(trial) for trial in self.trials],
            "finals": [_plain(trial) for trial in self.finals],
            "proxies": self.proxies,
            "repairs": self.repairs,
            "seconds": self.seconds,
            "finished": self.finished,
            "densities": dict(self.allocation.densities),
            "erk_densities": dict(self.reference),
        }


def _plain(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.name,
        "kl": _number(trial.kl),
        "seconds": trial.seconds,
        "counts": list(trial.counts),
    }


def _number(kl: float) -> float | None:
    return kl if math.isfinite(kl) else None
