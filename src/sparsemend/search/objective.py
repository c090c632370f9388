"""What a search minimises: the distance of outputs from the dense network's on unseen inputs.

For class scores that is KL(dense ‖ repaired); what it is for others, judges say.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping

from torch import nn

from sparsemend.errors import SparsemendWarning
from sparsemend.execution.batches import count_inputs, split_inputs
from sparsemend.finite import NotFiniteError
from sparsemend.masks import MaskRule, apply_masks, choose_masks
from sparsemend.progress import progress_shown
from sparsemend.recipe import Recipe
from sparsemend.repairs import (
    DistillSettings,
    FitSettings,
    Formula,
    Support,
    Terms,
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
    schedules=(ROUGH,),
)
# What the fewer rounds leave of the cost of a reconstruction.
_PROXY_ROUNDS = 0.5
# Steps of a trial where the repair trains, and what a repair with all steps costs beside it.
_TRIAL_STEPS = 60
_FINAL_COST = 2.0


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
        return Support(counts, None, rule)
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
        repair trains, trials are trained for a few steps.
    """

    def __init__(self, session: Session, recipe: Recipe) -> None:
        self._session, self._scope = session, recipe.scope
        self._new_biases = recipe.new_biases
        self._rule, self._training = recipe.mask_rule, recipe.training
        self._untrained = recipe.formula.trial
        self._formula = self._untrained if self._training is None else recipe.formula.trained
        self._last: tuple[dict[str, int], nn.Module] | None = None
        few, rest = split_inputs(session.seen, lambda n: max(1, round(_PROXY_INPUTS * n)))
        self._quick = session.on(few, rest or session.unseen)

    # A forward and a backward pass, of the dense network a forward one, two rankings of weights.
    slope_cost = 1.0

    @property
    def proxy_cost(self) -> float:
        """Cost of :meth:`proxy` as a share of that of :meth:`exact`."""
        rounds = _PROXY_ROUNDS if self._untrained.refits else 1.0
        few, all_ = (count_inputs(s.seen) for s in (self._quick, self._session))
        return rounds * few / all_

    @property
    def final_cost(self) -> float:
        """Cost of :meth:`final` beside that of :meth:`exact`; 0 where both are the same."""
        training = self._training
        return 0.0 if training is None or training.steps <= _TRIAL_STEPS else _FINAL_COST

    def exact(self, counts: Mapping[str, int]) -> float:
        """Loss after the real repair; infinite where outputs are no numbers.

        Where the repair trains, after :data:`_TRIAL_STEPS` steps of that.
        """
        return self._session.reference.loss(lambda: self._network(counts))

    def final(self, counts: Mapping[str, int]) -> float:
        """Loss after the real repair with the whole training."""
        return self._session.reference.loss(
            lambda: self._repaired(counts, self._session, self._formula, distill=self._training)
        )

    def proxy(self, counts: Mapping[str, int]) -> float:
        """Loss after a cheaper repair, of fewer inputs and rounds; comparable among themselves."""
        with progress_shown(False):
            return self._quick.reference.loss(
                lambda: self._repaired(counts, self._quick, self._untrained, _PROXY_SETTINGS)
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
        """After the real repair, or the first steps of one that trains; the last one is kept."""
        key = dict(counts)
        if self._last is None or self._last[0] != key:
            self._last = None  # before the next is made: one at a time
            few = self._training
            if few is not None:
                steps = min(few.steps, _TRIAL_STEPS)
                few = dataclasses.replace(few, steps=steps, judgements=1)
            network = self._repaired(counts, self._session, self._formula, distill=few)
            self._last = key, network
        return self._last[1]

    def _repaired(
        self,
        counts: Mapping[str, int],
        session: Session,
        formula: Formula,
        settings: FitSettings | None = None,
        distill: DistillSettings | None = None,
    ) -> nn.Module:
        model = copy.deepcopy(session.model)
        support = start_support(self._session, model, counts, self._rule)
        terms = Terms(support, self._scope, settings, self._new_biases, distill=distill)
        with warnings.catch_warnings():
            # What there is to say of the winner, its own repair says; of the others, nobody.
            warnings.simplefilter("ignore", SparsemendWarning)
            formula.run(session, model, terms)
        return model
