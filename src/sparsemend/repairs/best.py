"""Repair ``best``: try the sensible endings and keep the closest to the dense network.

Recalibrating BatchNorm after a reconstruction can help or hurt (least squares shrinks the
variance on purpose), and at mild sparsities a light repair can win. They are judged by closeness
to the dense network, for class scores KL(dense ‖ repaired), on inputs that no repair saw (method,
sections 5 and 9).
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from sparsemend.errors import SparsemendWarning
from sparsemend.finite import NotFiniteError, check_network
from sparsemend.repairs.adoption import adopt
from sparsemend.repairs.repair import Outcome, Repair, Situation, Support, Terms
from sparsemend.session import Session


def make_best(endings: Callable[[], Sequence[Repair]]) -> Repair:
    """The repair that tries others.

    Parameters
    ----------
    endings
        Gives all repairs; those are tried that say that they are an ending.
    """

    def run(session: Session, network: nn.Module, terms: Terms) -> Outcome:
        """Try every ending on a copy, and let the network become the closest.

        Those that refit weights come first; behind the first of these, repairs that finish one.
        Where masks are free, only those that choose masks. Where training is asked for, the best
        of all is trained.

        Held in memory: a few copies of the network.
        """
        trials = _Trials(session, network, terms)
        known = [repair for repair in endings() if repair.ending is not None]
        finishing = [repair for repair in endings() if repair.finishes]
        for repair in sorted(known, key=lambda repair: not repair.refits):
            if not trials.suits(repair, terms.support):
                continue
            trials.run(repair)
            if repair.refits and finishing:
                trials.finish(repair, finishing)
                finishing = []
        if terms.distill is not None:
            for repair in endings():
                if repair.training == "always":
                    trials.polish(repair)
        return trials.take(network)

    return Repair(
        "best",
        run,
        stage="alone",
        scopes=("sequential",),
        chooses_masks=True,
        refits=True,
        judges=True,
        training="asked",
        diagnosed_as="reconstruct",
    )


class _Trials:
    """Runs repairs on copies and keeps the one that is closest to the dense network."""

    def __init__(self, session: Session, network: nn.Module, terms: Terms) -> None:
        self._session, self._network, self._terms = session, network, terms
        self._tried: dict[str, float] = {}
        self._refitted: dict[str, tuple[nn.Module, Outcome]] = {}
        self._best: tuple[float, nn.Module, Outcome] | None = None
        self._failed: dict[str, NotFiniteError] = {}

    def suits(self, repair: Repair, support: Support) -> bool:
        """Whether a repair can be an ending on a support, and wants to."""
        if support.masks is None and not repair.chooses_masks:
            return False
        situation = Situation(self._session, support, self._tried)
        return repair.ending is None or repair.ending(situation)

    def run(self, repair: Repair) -> None:
        """Try a repair on the pruned network."""
        model = copy.deepcopy(self._network)
        earlier = {name: network for name, (network, _) in self._refitted.items()}
        terms = dataclasses.replace(self._terms, earlier=earlier)
        with self._trial(repair.name):
            outcome = repair.run(self._session, model, terms)
            self._judge(repair.name, model, outcome)
            if repair.refits:
                self._refitted[repair.name] = model, outcome

    def finish(self, refit: Repair, finishing: Sequence[Repair]) -> None:
        """Try repairs behind one that has refitted the weights."""
        if refit.name in self._failed:
            return
        start, before = self._refitted[refit.name]
        for repair in finishing:
            if self.suits(repair, self._behind(before).support):
                self._run_behind(repair, refit.name, start, before)

    def polish(self, repair: Repair) -> None:
        """Try a repair behind the best so far."""
        if self._best is not None:
            _, start, before = self._best
            self._run_behind(repair, before.repair, start, before)

    def _behind(self, before: Outcome) -> Terms:
        """The terms behind another repair, which has chosen the masks."""
        support = dataclasses.replace(self._terms.support, masks=before.masks)
        return dataclasses.replace(self._terms, support=support)

    def _run_behind(self, repair: Repair, first: str, start: nn.Module, before: Outcome) -> None:
        """Try a repair on what another one, of the name ``first``, has made."""
        model, name = copy.deepcopy(start), f"{first}+{repair.name}"
        with self._trial(name):
            outcome = repair.run(self._session, model, self._behind(before))
            self._judge(name, model, outcome.after(before))

    def take(self, network: nn.Module) -> Outcome:
        """Let the network become the best, and say what that was.

        Raises
        ------
        NotFiniteError
            That of the first repair, if all have failed.
        """
        if self._best is None:
            raise next(iter(self._failed.values()))
        for name, error in self._failed.items():
            warnings.warn(f"repair {name!r} was left out: {error}", SparsemendWarning, stacklevel=2)
        _, model, outcome = self._best
        adopt(network, model)
        return dataclasses.replace(outcome, tried=dict(self._tried))

    @contextmanager
    def _trial(self, formula: str) -> Iterator[None]:
        """A repair whose numbers do not stay finite is left out."""
        try:
            yield
        except NotFiniteError as error:
            self._failed[formula] = error

    def _judge(self, formula: str, model: nn.Module, outcome: Outcome) -> None:
        check_network(model, f"the network after repair {formula!r}")
        loss = self._session.reference.agreement(model).loss
        self._tried[formula] = loss
        if self._best is None or loss < self._best[0]:
            self._best = loss, model, dataclasses.replace(outcome, repair=formula)
