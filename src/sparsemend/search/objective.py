"""What a search minimises: the distance of outputs from the dense network's on unseen inputs.

For class scores that is KL(dense ‖ repaired); what it is for others, judges say.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

from torch import nn

from sparsemend.errors import SparsemendWarning
from sparsemend.execution.batches import count_inputs, split_inputs
from sparsemend.execution.copies import copied
from sparsemend.finite import NotFiniteError
from sparsemend.masks import MaskRule, apply_masks, choose_masks
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.progress import progress_shown
from sparsemend.recipe import Recipe
from sparsemend.repairs import (
    DistillSettings,
    FitSettings,
    Formula,
    Support,
    Terms,
    step_seconds,
    unshiftable,
)
from sparsemend.search.directions import Array
from sparsemend.search.slopes import at_the_margin, density_slopes
from sparsemend.session import Session
from sparsemend.solvers import ROUGH

# A cheap trial: a part of the calibration inputs, and of the rounds of a reconstruction.
_PROXY_INPUTS = 0.25
_PROXY_SETTINGS = FitSettings(
    refits=1,
    logit_refits=10,
    schedule=ROUGH,
    schedules=(ROUGH,),
)
# What the fewer rounds leave of the cost of a reconstruction.
_PROXY_ROUNDS = 0.5
# Steps of a training that cost about as much as a reconstruction.
_STEPS = 100.0


def start_support(
    session: Session, network: nn.Module, counts: Mapping[str, int], rule: MaskRule
) -> Support:
    """Choose the masks and apply them in place, unless the repair is to choose them.

    Parameters
    ----------
    session
        The dense network and its inputs.
    network
        The network to prune; still equal to the dense one.
    counts
        Layer name → number of weights to keep.
    rule
        Mask rule.
    """
    if rule.joint:
        if not any(layer.structure.coupled for layer in session.layers):
            return Support(counts, None, rule)
        rule = MAGNITUDE  # coupled layers have to agree before the first of them is repaired
    calibration = session.moments_for(rule.needs)
    masks = choose_masks(
        session.model, counts, rule.name, layers=session.layers, calibration=calibration
    )
    apply_masks(network, masks, session.layers)
    return Support(counts, masks, rule)


class Objective:
    """Prunes and repairs copies of a network and says how far they are from it.

    Held in memory: what the session holds, the dense network's outputs for a part of its inputs,
    and the network of the last real repair.

    Parameters
    ----------
    session
        The dense network and its inputs. Cheap trials are judged on a part of the inputs that
        repairs see, not on those held out: hundreds of trials would fit what confirms them.
    recipe
        Mask rule, repair and scope. For repair ``best`` trials are reconstructions. Where the
        repair trains, trials do not, except the final ones.
    """

    def __init__(self, session: Session, recipe: Recipe) -> None:
        self._session, self._scope = session, recipe.scope
        self._new_biases = recipe.new_biases
        self._rule, self._formula = recipe.mask_rule, recipe.formula.trial
        self._trained, self._training = recipe.formula.trained, recipe.training
        self._last: tuple[dict[str, int], nn.Module] | None = None
        few, rest = split_inputs(session.seen, lambda n: max(1, round(_PROXY_INPUTS * n)))
        self._quick = session.on(few, rest or session.unseen)
        self._directed = session.on(session.seen, jury=session.jury.by_direction())

    # A forward and a backward pass, of the dense network a forward one, two rankings of weights.
    slope_cost = 1.0

    @property
    def proxy_cost(self) -> float:
        """Cost of :meth:`proxy` as a share of that of :meth:`exact`."""
        rounds = _PROXY_ROUNDS if self._formula.refits else 1.0
        few, all_ = (count_inputs(s.seen) for s in (self._quick, self._session))
        return rounds * few / all_

    @property
    def final_cost(self) -> float:
        """Cost of :meth:`final` beside that of :meth:`exact`; 0 where the repair does not train."""
        if self._training is None:
            return 0.0
        steps = self._training.steps
        return 1 + (steps if math.isfinite(steps) else DistillSettings.steps) / _STEPS

    def training_seconds(self) -> float:
        """Seconds that the training of :meth:`final` takes, by a few of its steps."""
        if self._training is None:
            return 0.0
        if not math.isfinite(self._training.steps):
            return self._training.seconds
        return self._training.steps * step_seconds(self._session)

    def exact(self, counts: Mapping[str, int]) -> float:
        """Loss after the real repair, without training; infinite where outputs are no numbers."""
        return self._session.reference.loss(lambda: self._network(counts))

    def direction(self, counts: Mapping[str, int]) -> float:
        """The same, class scores judged by their direction, which says more of a training's end.

        Costs nothing where these counts had the last real repair. KL holds it against a network
        that it is less sure of itself than the dense one, which is what training mends first.
        """
        return self._directed.reference.loss(lambda: self._network(counts))

    def final(self, counts: Mapping[str, int]) -> float:
        """Loss after the real repair and its training."""
        return self._session.reference.loss(
            lambda: self._repaired(counts, self._session, self._trained, distill=self._training)
        )

    def proxy(self, counts: Mapping[str, int]) -> float:
        """Loss after a cheaper repair, of fewer inputs and rounds; comparable among themselves."""
        with progress_shown(False):
            return self._quick.reference.loss(
                lambda: self._repaired(counts, self._quick, self._formula, _PROXY_SETTINGS)
            )

    def slopes(self, counts: Mapping[str, int]) -> Array | None:
        """d loss / d log density of every layer after the real repair, on the inputs that it saw.

        Costs :attr:`slope_cost` repairs where these counts had the last real repair. None where
        weights are refitted, as dense values then do not say what a further weight would bring,
        and where it is not known which means and variances the repair restores.
        """
        restored = self._formula.restores
        if self._formula.refits or self._rule.joint or restored is None:
            return None
        marginal = at_the_margin(self._session, counts, self._rule)
        try:
            network = self._network(counts)
        except NotFiniteError:
            return None
        return density_slopes(
            self._session,
            network,
            marginal,
            restored=restored,
            # Those that were to get a bias have it by now.
            unshifted=unshiftable(network, self._session.layers),
        )

    def _network(self, counts: Mapping[str, int]) -> nn.Module:
        """After the real repair, without training; the last one is kept."""
        key = dict(counts)
        if self._last is None or self._last[0] != key:
            self._last = None  # before the next is made: one at a time
            self._last = key, self._repaired(counts, self._session, self._formula)
        return self._last[1]

    def _repaired(
        self,
        counts: Mapping[str, int],
        session: Session,
        formula: Formula,
        settings: FitSettings | None = None,
        distill: DistillSettings | None = None,
    ) -> nn.Module:
        model = copied(session.model)
        support = start_support(self._session, model, counts, self._rule)
        terms = Terms(support, self._scope, settings, self._new_biases, distill=distill)
        with warnings.catch_warnings():
            # What there is to say of the winner, its own repair says; of the others, nobody.
            warnings.simplefilter("ignore", SparsemendWarning)
            formula.run(session, model, terms)
        return model
