"""Repairs are named by a formula: one repair, or several in order as in ``variance+batchnorm``."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from torch import nn

from sparsemend.errors import SparsemendError, did_you_mean
from sparsemend.finite import check_network
from sparsemend.repairs.registry import find_repair, get_repair, repair_names, repairs
from sparsemend.repairs.repair import SCOPES, STAGES, Outcome, Repair, Restored, Terms, Training
from sparsemend.session import Session


@dataclass(frozen=True)
class Formula:
    """Repairs that run one after the other.

    Attributes
    ----------
    parts
        At most one of every stage, in order.
    """

    parts: tuple[Repair, ...]

    def __str__(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def refits(self) -> bool:
        """Whether the kept weights get other values altogether."""
        return any(part.refits for part in self.parts)

    @property
    def chooses_masks(self) -> bool:
        """Whether it can choose the masks itself."""
        return self.parts[0].chooses_masks

    @property
    def judges(self) -> bool:
        """Whether it chooses by closeness, and needs inputs to judge that on."""
        return any(part.judges for part in self.parts)

    @property
    def training(self) -> Training:
        """Whether it takes steps of gradient descent."""
        found = {part.training for part in self.parts}
        return next((kind for kind in ("always", "asked") if kind in found), "never")

    @property
    def restores(self) -> Restored | None:
        """Where it brings means and variances of channels back; None where that is not known."""
        found = {part.restores for part in self.parts}
        if None in found:
            return None
        return next((place for place in ("norms", "layers") if place in found), "nothing")

    @property
    def diagnosis(self) -> str:
        """The repair whose residual stands for this formula in a diagnosis."""
        acting = [part for part in self.parts if part.restores != "nothing"]
        return (acting or self.parts)[0].diagnosis

    @property
    def trial(self) -> Formula:
        """What a search tries allocations with: of endings the main one, and no training."""
        parts = tuple(part for part in self.parts if part.training != "always")
        if self.parts[0].stage == "alone" or not parts:
            return Formula((get_repair(self.diagnosis),))
        return Formula(parts)

    @property
    def trained(self) -> Formula:
        """The trial and the training behind it."""
        if self.parts[0].stage != "alone":
            return self
        training = (part for part in repairs().values() if part.training == "always")
        return Formula((*self.trial.parts, *training))

    def check(self, model: nn.Module, scope: str) -> None:
        """Refuse what the network or the scope cannot have, before any work."""
        if scope not in SCOPES:
            raise SparsemendError("unknown repair scope", scope, ", ".join(SCOPES))
        for part in self.parts:
            if scope not in part.scopes:
                raise SparsemendError(
                    f"repair {str(self)!r} works layer by layer",
                    scope,
                    " or ".join(f"scope {name!r}" for name in part.scopes),
                )
            if part.require is not None:
                part.require(model)

    def run(self, session: Session, network: nn.Module, terms: Terms) -> Outcome:
        """Run all parts in place.

        Parameters
        ----------
        session
            The dense network and its inputs.
        network
            The network to repair; still dense where the support has no masks.
        terms
            Support, scope and constants.

        Raises
        ------
        NotFiniteError
            If something on the way, or a parameter or statistic in the end, is not finite.
        """
        if terms.support.masks is None and not self.chooses_masks:
            raise SparsemendError(f"repair {str(self)!r} needs masks: it does not choose them")
        outcome = Outcome(terms.support.masks or {})
        for index, part in enumerate(self.parts):
            then = self.parts[index + 1 :]
            found = part.run(session, network, dataclasses.replace(terms, then=then))
            outcome = found.after(outcome)
            support = dataclasses.replace(terms.support, masks=outcome.masks)
            terms = dataclasses.replace(terms, support=support)
        check_network(network, f"the network after repair {str(self)!r}")
        return outcome


def parse_repair(text: str) -> Formula:
    """Read ``"variance"``, ``"batchnorm"``, ``"shrinkage+batchnorm(ema)"`` and the like.

    ``batchnorm`` alone means mode ``exact``; ``batchnorm-ema`` and ``batchnorm(ema)`` are the
    same.

    Raises
    ------
    SparsemendError
        For an unknown part (names the known ones) or parts in an impossible order.
    """
    parts: list[Repair] = []
    for piece in str(text).split("+"):
        name = re.sub(r"^(\w+)[:(](\w+)\)?$", r"\1-\2", piece.strip())
        found = find_repair(name)
        if found is None or not _may_follow(found, parts):
            raise _unknown(text, name)
        parts.append(found)
    return Formula(tuple(parts))


def _may_follow(part: Repair, parts: list[Repair]) -> bool:
    if not parts:
        return True
    if "alone" in (part.stage, parts[0].stage):
        return False
    return STAGES.index(part.stage) > STAGES.index(parts[-1].stage)


def _unknown(text: str, part: str) -> SparsemendError:
    names: dict[str, list[str]] = {stage: [] for stage in ("alone", *STAGES)}
    for repair in repairs().values():
        names[repair.stage].append(repair.name)
    return SparsemendError(
        "unknown repair",
        text,
        f"{', '.join(names['alone'])}, one of {', '.join(names['weights'])}, "
        f"{', '.join(names['statistics'])}, or {', '.join(names['training'])}, or several in this "
        "order as in 'variance+batchnorm'",
        "" if part in repair_names() else did_you_mean(part, repair_names()),
    )
