"""Least squares on the kept weights as a repair, and its variants.

``-mirrored`` learns from mirrored copies of images as well, ``-augmented`` from three copies that
are mirrored at random and shifted; ``-again`` reconstructs a second time from the start, with a
choice of weights that goes by how much every channel matters in what the first reconstruction left.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from sparsemend.calibration import InputMoments
from sparsemend.damage.pruned_layer import PrunedLayer
from sparsemend.damage.refit import refitted_damage
from sparsemend.errors import SparsemendError
from sparsemend.execution.augmentation import augmented, mirrored
from sparsemend.execution.batches import Batch
from sparsemend.repairs.importance import channel_importance
from sparsemend.repairs.reconstruction import reconstruct
from sparsemend.repairs.repair import Outcome, Repair, Situation, Terms
from sparsemend.session import Session

_NAME, _MIRRORED = "reconstruct", "-mirrored"
# Changed copies of every image: one is worth most of it, three a little more.
_COPIES = 3


def residual(pruned: PrunedLayer) -> Tensor:
    """What least squares on the kept weights leaves of every channel, [K, C]."""
    layer, moments = pruned.layer, pruned.moments
    if not isinstance(moments, InputMoments):
        raise SparsemendError(
            f"layer {layer.name!r} is too wide (fan-in {layer.fan_in}) for a diagnosis with "
            f"repair {_NAME!r}",
            fix="calibrate with a larger max_fan_in",
        )
    return refitted_damage(pruned.dense, pruned.masks, moments)


def _variant(
    suffix: str = "",
    copied: Callable[[Sequence[Batch]], list[Tensor] | None] | None = None,
    *,
    again: bool = False,
    tried: bool = True,
) -> Repair:
    """A reconstruction.

    Parameters
    ----------
    suffix
        Of its name.
    copied
        Inputs → these with changed copies, None where they are no images.
    again
        Whether it is the second from the start.
    tried
        Whether repair ``best`` tries it.
    """
    first = f"{_NAME}{suffix}"
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
        if copied is not None:
            session = session.on(_with_copies(first, copied(session.seen)))
        if not again:
            return refit(session, network, terms)
        before = terms.earlier.get(first)
        if before is None:
            before = copy.deepcopy(network)
            refit(session, before, terms)
        importance = channel_importance(before, session.layers)
        return refit(session, network, terms, importance)

    def ending(situation: Situation) -> bool:
        losses = situation.tried
        if not again:
            return copied is None or copied(situation.session.seen) is not None
        # Only the choice of weights changes, and only from the better inputs.
        better = losses.get(f"{_NAME}{_MIRRORED}", math.inf) < losses.get(_NAME, math.inf)
        return situation.support.masks is None and better == (copied is not None)

    return Repair(
        name,
        run,
        scopes=("sequential",),
        refits=True,
        chooses_masks=True,
        residual=residual if name == _NAME else None,
        diagnosed_as=_NAME,
        ending=ending if tried else None,
    )


def _with_copies(name: str, copies: list[Tensor] | None) -> list[Tensor]:
    """The inputs and their changed copies."""
    if copies is None:
        raise SparsemendError(
            f"repair {name!r} needs images",
            allowed="floating-point tensors [N, C, H, W]",
            fix=f"use {_NAME!r}",
        )
    return copies


RECONSTRUCT = _variant()
RECONSTRUCT_MIRRORED = _variant(_MIRRORED, mirrored)
RECONSTRUCT_AUGMENTED = _variant("-augmented", partial(augmented, copies=_COPIES), tried=False)
RECONSTRUCT_AGAIN = _variant(again=True)
RECONSTRUCT_MIRRORED_AGAIN = _variant(_MIRRORED, mirrored, again=True)
