"""Distillation as a repair: kept weights trained towards the dense network on unlabelled inputs."""

from __future__ import annotations

from torch import nn

from sparsemend.repairs.distillation.loop import distill
from sparsemend.repairs.distillation.settings import DistillSettings
from sparsemend.repairs.repair import Outcome, Repair, Terms
from sparsemend.session import Session


def _run(session: Session, network: nn.Module, terms: Terms) -> Outcome:
    masks = terms.support.masks
    assert masks is not None, "the formula has checked that"
    distill(session, network, masks, terms.distill or DistillSettings())
    return Outcome(masks)


DISTILL = Repair(
    "distill",
    _run,
    stage="training",
    refits=True,
    judges=True,
    training="always",
    restores="nothing",
)
