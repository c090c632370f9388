"""Least squares on the kept weights as a repair, and its variants.

``-mirrored`` learns from mirrored copies of images as well; ``-again`` reconstructs a second time
from the start, with a choice of weights that goes by how much every channel matters in what the
first reconstruction left.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

from torch import Tensor, nn

from sparsemend.calibration import InputMoments
from sparsemend.damage.pruned_layer import PrunedLayer
from sparsemend.damage.refit import refitted_damage
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import mirrored
from sparsemend.repairs.importance import channel_importance
from sparsemend.repairs.reconstruction import reconstruct
from sparsemend.repairs.repair import Outcome, Repair, Situation, Terms
from sparsemend.session import Session

_NAME = "reconstruct"


def residual(pruned: PrunedLayer) -> Tensor:
    """What least squares on the kept weights leaves of every channel, [K, C]."""
    layer, moments = pruned.layer, pruned.moments
    if not isinstance(moments, InputMoments):
        raise SparsemendError(
            f"layer {layer.name!r} is too wide (fan-in {layer.fan_in}) for a diagnosis with "
            f"repair {_NAME!r}",
            fix="calibrate with a larger max_fan_in",
        )
    return refitted_damage(pruned.dense, pruned.masks(), moments)


def _variant(*, with_mirrored: bool = False, again: bool = False) -> Repair:
    first = f"{_NAME}-mirrored" if with_mirrored else _NAME
    name = f"{first}-again" if again else first

    def refit(
        session: Session,
        network: nn.Module,
        terms: Terms,
        importance: Mapping[str, Tensor] | None = None,
    ) -> Outcome:
        return reconstruct(
            session,
            network,
            terms.support,
            terms.settings,
            importance,
            new_biases=terms.new_biases,
        )

    def run(session: Session, network: nn.Module, terms: Terms) -> Outcome:
        if with_mirrored:
            session = session.on(_with_mirror_images(session))
        if not again:
            return refit(session, network, terms)
        before = terms.earlier.get(first)
        if before is None:
            before = copy.deepcopy(network)
            refit(session, before, terms)
        importance = channel_importance(before, session.layers)
        return refit(session, network, terms, importance)

    def ending(situation: Situation) -> bool:
        tried = situation.tried
        if with_mirrored and not again:
            return mirrored(situation.session.seen) is not None
        if not again:
            return True
        # Only the choice of weights changes, and only from the better inputs.
        better = tried.get(f"{_NAME}-mirrored", math.inf) < tried.get(_NAME, math.inf)
        return situation.support.masks is None and better == with_mirrored

    return Repair(
        name,
        run,
        scopes=("sequential",),
        refits=True,
        chooses_masks=True,
        residual=None if with_mirrored or again else residual,
        diagnosed_as=_NAME,
        ending=ending,
    )


def _with_mirror_images(session: Session) -> list[Tensor]:
    """The inputs and their mirror images."""
    doubled = mirrored(session.seen)
    if doubled is None:
        raise SparsemendError(
            f"repair '{_NAME}-mirrored' needs images",
            allowed="floating-point tensors [N, C, H, W]",
            fix=f"use {_NAME!r}",
        )
    return doubled


RECONSTRUCT = _variant()
RECONSTRUCT_MIRRORED = _variant(with_mirrored=True)
RECONSTRUCT_AGAIN = _variant(again=True)
RECONSTRUCT_MIRRORED_AGAIN = _variant(with_mirrored=True, again=True)
