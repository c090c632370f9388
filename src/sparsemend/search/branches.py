"""Rule ``branches``: residual branches that a repair cannot save are given up whole.

At high sparsities and with a light repair, the weights of a residual branch can be worth more in
the rest of the network: what is left of the branch adds more noise to the sum than signal, and the
shortcut beside it carries the signal on. So branches are units of the allocation (method,
section 7). Which of them to give up is measured: the budget is divided over all other layers, and
the network pruned and repaired on a few inputs. Repairs that refit weights save every branch, so
with these none is given up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from sparsemend.allocation import Allocation, Quota, allocate_without
from sparsemend.allocation.lamp import LAMP
from sparsemend.execution.batches import count_inputs, first_inputs
from sparsemend.layers import Branch, layer_weights, residual_branches
from sparsemend.progress import progress_bar
from sparsemend.recipe import BRANCHES, Recipe
from sparsemend.search.objective import Objective
from sparsemend.session import Session

# By which rule the other layers share the budget.
_OTHERS = LAMP.name
# Inputs that a trial repairs with, and as many that it is judged on: what branches are worth at
# these sparsities is several times the standard error.
_INPUTS = 256
# Share of the loss that giving up a branch has to save: less is within the error of these inputs.
_WORTHWHILE = 0.03
# How often each branch is tried, on average.
_ROUNDS = 1.5


def branch_allocation(session: Session, recipe: Recipe, quota: Quota) -> Allocation:
    """The allocation without the residual branches that :func:`give_up` names.

    Class scores are judged by their direction, see
    :mod:`sparsemend.evaluation.judges.direction`: pruned networks are less sure of themselves.

    Parameters
    ----------
    session
        The dense network and its inputs.
    recipe
        Mask rule and repair of the trials.
    quota
        What all layers together may keep.

    Returns
    -------
    Allocation
        Layers of branches that are given up keep no weight.
    """

    def idle(given_up: Collection[Branch]) -> set[str]:
        return {name for branch in given_up for name in branch.layers}

    def without(given_up: Collection[Branch]) -> Allocation:
        return _divided(session, quota, idle(given_up))

    branches = residual_branches(session.layers)
    if recipe.formula.refits or not branches:
        return without(())
    seen, judged = (first_inputs(batches, _INPUTS) for batches in (session.seen, session.unseen))
    trials = Objective(session.on(seen, judged, session.jury.by_direction()), recipe)

    def loss(given_up: Collection[Branch]) -> float:
        gone = idle(given_up)
        rest = [i for i, layer in enumerate(session.layers) if layer.name not in gone]
        return trials.exact(without(given_up)) if quota.fits(rest) else math.inf

    return without(give_up(branches, loss))


def branching_cost(session: Session, recipe: Recipe) -> float:
    """About what :func:`branch_allocation` costs, in repairs; 0 where it gives up nothing."""
    branches = residual_branches(session.layers)
    if recipe.formula.refits or not branches:
        return 0.0
    share = min(1.0, _INPUTS / count_inputs(session.seen))
    return share * (1 + _ROUNDS * len(branches))


def give_up(
    branches: Sequence[Branch], loss: Callable[[Sequence[Branch]], float]
) -> tuple[Branch, ...]:
    """Which branches a network is better off without, one more at a time.

    The first is the one without which the loss is least, if that is clearly less than with all;
    and so on. Without those that did harm by themselves nothing is tried again.

    Parameters
    ----------
    branches
        Those that can be given up.
    loss
        Branches that are given up → loss of the network without them; infinite where they cannot
        be, as the other layers have too few weights.
    """
    gone: tuple[Branch, ...] = ()
    with progress_bar("branches", 1 + len(branches)) as advance:
        least = loss(gone)
        advance()
        while branches:
            losses = []
            for branch in branches:
                losses.append(loss((*gone, branch)))
                advance()
            best = losses.index(min(losses))
            if not losses[best] < (1 - _WORTHWHILE) * least:
                break
            gone = (*gone, branches[best])
            branches = [
                branch for i, branch in enumerate(branches) if i != best and losses[i] < least
            ]
            least = losses[best]
    return gone


def divided_again(session: Session, allocation: Allocation, quota: Quota) -> Allocation:
    """Another budget, without the branches that this allocation has given up."""
    idle = {name for name, kept in allocation.items() if not kept}
    return _divided(session, quota, idle)


def _divided(session: Session, quota: Quota, idle: Collection[str]) -> Allocation:
    layers = session.layers
    weights = layer_weights(session.model, layers)
    found = allocate_without(layers, weights, quota, _OTHERS, idle)
    return Allocation(found, found.sizes, BRANCHES)
