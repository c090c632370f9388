"""What a compression gave: the sparse network and how it came about."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparsemend.allocation import Allocation
from sparsemend.boundary import public
from sparsemend.diagnosis import Diagnosis
from sparsemend.errors import SparsemendError, printable
from sparsemend.evaluation import Agreement
from sparsemend.exports import save_checkpoint
from sparsemend.files import filled_folder
from sparsemend.layers import Coverage, LayerSet, discover
from sparsemend.masks import Masks, parameter_masks
from sparsemend.patterns import patterned
from sparsemend.recipe.defaults import PATTERN
from sparsemend.search import AllocationSearch
from sparsemend.targets import Target
from sparsemend.verbs.plan import Plan
from sparsemend.verbs.screen import as_html, first_screen

# Beside a network in a folder: what was done.
PRETRAINED_FACTS = "sparsemend.json"
# So many layers are named in the text of a result.
_NAMED = 8


@dataclass(frozen=True, repr=False, eq=False)
class CompressionResult:
    """A sparse, repaired network and how it came about.

    Attributes
    ----------
    model
        The sparse network: same class and keys, pruned weights are zero.
    masks
        Layer name → boolean tensor of the shape of ``layers[name]``, True where kept: that of the
        weight as the layer multiplies with it, which may be a part of a parameter, or turned.
    allocation
        Exact kept counts.
    rule, mask, repair, scope
        The choices made.
    agreement
        Closeness to the dense network on ``heldout``, else on the calibration inputs.
    heldout
        Whether ``agreement`` was measured on inputs that the repair did not see.
    diagnosis
        Where the rule used one, else None.
    search
        With rule ``auto``: what was tried, and how the winner compares with the plain rules.
    layers
        What was pruned; ``layers.coverage`` says how much of the network that is, and what was
        left out and why.
    added_biases
        Module paths of layers that got a bias parameter, because they had none, no BatchNorm
        follows and ``new_biases`` was asked for. Empty: the model loads into the original
        architecture strictly.
    unshifted
        Names of layers that were repaired without a shift: they have neither a bias nor a
        BatchNorm behind them.
    held_back
        Layer name → output channels whose gains or refitted weights were held back: too few of
        the inputs speak for them, because what they read fires rarely or hardly varies there.
    signal_ends
        Layers at which the signal ends, where the output does not depend on the input any more;
        empty where it does, as it should.
    tried
        With repair ``best``: every ending that was tried → its loss on the held-out inputs;
        ``repair`` names the winner.
    seconds
        Stage → wall-clock seconds.
    multiplications
        Layer → multiplications of its weights for one input of the dense network, also of layers
        that were not chosen; empty where they were not counted.
    kept_multiplications
        Share of these that the sparse network does where zeros are skipped, without those of
        channels and branches that do not reach its output.
    target, reached
        What the network was to cost at most in the place of a sparsity, and what it does cost: a
        share, seconds or bytes; else None.
    plan
        Where rule and repair were planned for a time: what was done, to do it again exactly.
    pattern
        Which weights could be kept, as in :func:`sparsemend.compress`.
    """

    model: nn.Module
    masks: Mapping[str, Tensor]
    allocation: Allocation
    rule: str
    mask: str
    repair: str
    scope: str
    agreement: Agreement
    heldout: bool
    diagnosis: Diagnosis | None = None
    search: AllocationSearch | None = None
    layers: LayerSet | None = None
    added_biases: tuple[str, ...] = ()
    unshifted: tuple[str, ...] = ()
    held_back: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    signal_ends: tuple[str, ...] = ()
    tried: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    multiplications: Mapping[str, int] = field(default_factory=dict)
    kept_multiplications: float | None = None
    target: Target | None = None
    reached: float | None = None
    plan: Plan | None = None
    pattern: str = PATTERN

    @property
    def sparsity(self) -> float:
        """Achieved sparsity, exact."""
        return self.allocation.sparsity

    @property
    def parameter_masks(self) -> Masks:
        """Name of a parameter → boolean tensor of its shape, True for what is not pruned."""
        layers = discover(self.model) if self.layers is None else self.layers
        return parameter_masks(self.model, dict(self.masks), layers)

    @property
    def coverage(self) -> Coverage | None:
        """How much of the network its layers are."""
        return None if self.layers is None else self.layers.coverage

    def to_dict(self) -> dict[str, Any]:
        """Everything that was decided and measured, as plain data for JSON."""
        return {
            "sparsity": self.sparsity,
            "target": None if self.target is None else self.target.to_dict(self.reached),
            "kept": self.allocation.kept,
            "total": self.allocation.total,
            "counts": dict(self.allocation),
            "sizes": dict(self.allocation.sizes),
            "rule": self.rule,
            "search": None if self.search is None else self.search.to_dict(),
            "mask": self.mask,
            "pattern": self.pattern,
            "repair": self.repair,
            "tried": dict(self.tried),
            "scope": self.scope,
            "loss": self.agreement.loss,
            "judge": self.agreement.judge,
            "judged": str(self.agreement),
            "kl": self.agreement.kl,
            "agreement": self.agreement.top1,
            "heldout": self.heldout,
            "added_biases": list(self.added_biases),
            "unshifted": list(self.unshifted),
            "held_back": {name: list(found) for name, found in self.held_back.items()},
            "signal_ends": list(self.signal_ends),
            "coverage": None if self.coverage is None else self.coverage.to_dict(),
            "seconds": dict(self.seconds),
            "multiplications": dict(self.multiplications),
            "kept_multiplications": self.kept_multiplications,
            "plan": None if self.plan is None else self.plan.to_dict(),
            "version": importlib.metadata.version("sparsemend"),
        }

    @public
    def save(
        self, path: str | os.PathLike[str], metadata: Mapping[str, object] | None = None
    ) -> None:
        """Write the model as safetensors with metadata, atomically."""
        names = ("rule", "mask", "pattern", "repair", "scope")
        facts = {name: getattr(self, name) for name in names}
        save_checkpoint(
            self.model,
            path,
            self.allocation,
            {**(metadata or {}), **facts},
            added_biases=self.added_biases,
        )

    @public
    def save_pretrained(self, folder: str | os.PathLike[str], *companions: Any) -> None:
        """Write a network of transformers so that ``from_pretrained`` reads it, and the plan.

        Parameters
        ----------
        folder
            Where to; made if missing. The network's configuration and weights go there under their
            own keys, and ``sparsemend.json`` with what was done. Files of other names stay.
        companions
            What goes there as well, by its own ``save_pretrained``: a tokenizer and the like.

        Raises
        ------
        SparsemendError
            If the network has no ``save_pretrained``, or got biases that it does not read back.
        """
        for part in (self.model, *companions):
            if not callable(getattr(part, "save_pretrained", None)):
                raise SparsemendError(
                    f"{'the network' if part is self.model else 'a companion'} has no "
                    "save_pretrained",
                    type(part).__name__,
                    "networks, tokenizers and image processors of transformers",
                    "use result.save('sparse.safetensors')",
                )
        if self.added_biases:
            raise SparsemendError(
                "from_pretrained would not read the biases that were added",
                list(self.added_biases)[:_NAMED],
                fix="compress without new_biases, or use result.save('sparse.safetensors')",
            )
        with filled_folder(Path(folder), "the folder of the network") as target:
            for part in (self.model, *companions):
                part.save_pretrained(target)
            facts = json.dumps(self.to_dict(), indent=1)
            (target / PRETRAINED_FACTS).write_text(facts, encoding="utf-8")

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return as_html(first_screen(self.to_dict()), self.allocation.densities)

    def __repr__(self) -> str:
        return (
            f"CompressionResult(rule={self.rule!r}, mask={self.mask!r}, repair={self.repair!r}, "
            f"sparsity={self.sparsity:.6g}, loss={self.agreement.loss:.6g})"
        )

    def __str__(self) -> str:
        where = "held-out" if self.heldout else "calibration"
        lines = [
            f"{100 * self.sparsity:.2f} % sparse: {self.allocation.kept:,} of "
            f"{self.allocation.total:,} weights kept",
            *([] if self.target is None else [self.target.told(self.reached)]),
            f"rule {self.rule}, mask {self.mask}{patterned(self.pattern)}, repair {self.repair} "
            f"({self.scope})",
            f"{self.agreement} ({where} inputs)",
        ]
        if self.coverage is not None and self.coverage.covered < self.coverage.matrix:
            overall = self.coverage.sparsity(self.allocation.kept)
            lines.insert(
                1,
                f"{100 * overall['matrix']:.2f} % of all matrix weights, "
                f"{100 * overall['parameters']:.2f} % of all parameters removed: {self.coverage}",
            )
        empty = [name for name, kept in self.allocation.items() if not kept]
        if empty:
            lines.append(f"given up whole: {_some(empty)}")
        inside = [] if self.layers is None else [x.name for x in self.layers if not x.is_module]
        if inside:
            more = f" and {len(inside) - 4} more" if len(inside) > 4 else ""
            lines.append(f"pruned inside of larger modules: {', '.join(inside[:4])}{more}")
        if self.plan is not None and self.plan.trials:
            losses = ", ".join(f"{rule} {loss:.4f}" for rule, loss in self.plan.trials.items())
            lines.append(f"tried ({self.agreement.label}): {losses}")
        if len(self.tried) > 1:
            losses = ", ".join(f"{name} {loss:.4f}" for name, loss in self.tried.items())
            lines.append(f"tried ({self.agreement.label}): {losses}")
        if self.added_biases:
            lines.append(f"got a bias parameter: {', '.join(map(printable, self.added_biases))}")
        if self.unshifted:
            lines.append(f"without a bias, so not shifted: {_some(self.unshifted)}")
        if self.held_back:
            counted = [f"{name} ({len(found)})" for name, found in self.held_back.items()]
            lines.append(f"channels held back, for too few inputs that fire: {_some(counted)}")
        if self.signal_ends:
            lines.append(
                "THE OUTPUT DOES NOT DEPEND ON THE INPUT: the signal ends at "
                f"{_some(self.signal_ends)}"
            )
        return "\n".join(lines)


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - _NAMED
    return ", ".join(map(printable, names[:_NAMED])) + (f" and {rest} more" if rest > 0 else "")
