"""What a repair is: a record of how it runs and of what other stages must know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from sparsemend.damage.pruned_layer import PrunedLayer
from sparsemend.masks import MaskRule, Masks
from sparsemend.repairs.distillation.settings import DistillSettings
from sparsemend.repairs.fit import FitSettings
from sparsemend.session import Session

SCOPES = ("sequential", "one-shot")
# A formula runs its parts in this order, at most one of each; "alone" is the whole formula.
STAGES = ("weights", "statistics", "training")

Stage = Literal["weights", "statistics", "training", "alone"]
# Where a repair brings means and variances of channels back, whatever the weights are: nowhere,
# in front of every BatchNorm that keeps running statistics, or behind every layer.
Restored = Literal["nothing", "norms", "layers"]
# Whether a repair takes steps of gradient descent: never, where they are asked for, or always.
Training = Literal["never", "asked", "always"]


@dataclass(frozen=True)
class Support:
    """Which weights a repair may use.

    Attributes
    ----------
    counts
        Layer name → number of weights to keep.
    masks
        Layer name → boolean tensor of the stored shape; None where the repair is to choose.
    rule
        How it chooses them; it needs the fit of the layer.
    """

    counts: Mapping[str, int]
    masks: Masks | None
    rule: MaskRule | None = None


@dataclass(frozen=True)
class Terms:
    """On what terms a repair runs.

    Attributes
    ----------
    support
        The weights that it may use.
    scope
        ``"sequential"``: layer by layer, inputs from the network repaired so far;
        ``"one-shot"``: all layers from one pass.
    settings
        Constants of a repair that fits layers; None for its own.
    distill
        How long and how a repair trains; None for its own, and for none where it trains only if
        that is asked for.
    new_biases
        Whether a layer that has neither a bias nor a BatchNorm behind it may get a bias; else it
        is fitted without a shift.
    then
        The parts of the formula that run after it.
    earlier
        Name of a repair → the network that it left from the same start, where that is at hand.
    """

    support: Support
    scope: str = "sequential"
    settings: FitSettings | None = None
    new_biases: bool = False
    then: tuple[Repair, ...] = ()
    earlier: Mapping[str, nn.Module] = field(default_factory=dict)
    distill: DistillSettings | None = None


@dataclass(frozen=True)
class Outcome:
    """What a repair did besides changing the network in place.

    Attributes
    ----------
    masks
        Layer name → boolean tensor of the stored weight's shape, True where kept.
    added_biases
        Module paths that got a bias parameter.
    unshifted
        Names of layers that were repaired without a shift, for want of a place for it.
    held_back
        Layer name → output channels whose gains or weights were held back, because too few inputs
        speak for them (``evidence.py``).
    repair
        Formula of what was done, where the repair has chosen it; else empty.
    tried
        Formula → loss on held-out inputs of everything that it has tried for that.
    """

    masks: Masks
    added_biases: tuple[str, ...] = ()
    unshifted: tuple[str, ...] = ()
    held_back: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    repair: str = ""
    tried: Mapping[str, float] = field(default_factory=dict)

    def after(self, before: Outcome) -> Outcome:
        """The outcome of both, where another repair had run on the same network before."""
        return dataclasses.replace(
            self,
            added_biases=(*before.added_biases, *self.added_biases),
            unshifted=tuple(dict.fromkeys((*before.unshifted, *self.unshifted))),
            held_back={**before.held_back, **self.held_back},
        )


@dataclass(frozen=True)
class Situation:
    """What repair ``best`` has when it asks whether an ending is worth trying.

    Attributes
    ----------
    session
        The network and its inputs.
    support
        The weights that may be used.
    tried
        Formula → loss on held-out inputs so far.
    """

    session: Session
    support: Support
    tried: Mapping[str, float]


@dataclass(frozen=True)
class Repair:
    """A way to undo what pruning did, without labels.

    Attributes
    ----------
    name
        In the registry, in formulas, on the command line and in stores.
    run
        (session, pruned network, terms) → outcome; changes the network in place. Zeros stay
        zeros. Where the support has no masks, the network is still dense.
    stage
        Its place in a formula, one of :data:`STAGES`, or ``"alone"``.
    scopes
        Those that it can work in.
    refits
        Whether kept weights get other values altogether, so that dense values no longer say
        what a further weight would bring.
    chooses_masks
        Whether it can choose the masks itself.
    restores
        Where it brings means and variances of channels back, or None where that is not known:
        rule ``auto`` then follows no slopes.
    cancels_scales
        Whether it undoes any positive scale and shift of the channels in front of a BatchNorm.
    residual
        Damage that is left of a pruned layer's channels, [K, C], in closed form; None where
        there is no such form.
    diagnosed_as
        Name of the repair whose residual stands for it where it has none.
    ending
        Whether repair ``best`` tries it on the pruned network in a situation; None for never.
    finishes
        Whether repair ``best`` also tries it on a network whose weights were refitted.
    judges
        Whether it chooses by closeness on inputs that no repair sees.
    training
        Whether it trains. What always does is left out where rule ``auto`` tries allocations, but
        for the last two, and repair ``best`` tries it behind its best ending where training is
        asked for.
    require
        Raises if a network cannot have this repair.
    aliases
        Further names in formulas.
    """

    name: str
    run: Callable[[Session, nn.Module, Terms], Outcome]
    stage: Stage = "weights"
    scopes: tuple[str, ...] = SCOPES
    refits: bool = False
    chooses_masks: bool = False
    restores: Restored | None = None
    cancels_scales: bool = False
    residual: Callable[[PrunedLayer], Tensor] | None = None
    diagnosed_as: str = "variance"
    ending: Callable[[Situation], bool] | None = None
    finishes: bool = False
    judges: bool = False
    training: Training = "never"
    require: Callable[[nn.Module], object] | None = None
    aliases: tuple[str, ...] = ()

    @property
    def diagnosis(self) -> str:
        """Name of the repair whose residual stands for it in a diagnosis."""
        return self.name if self.residual is not None else self.diagnosed_as
