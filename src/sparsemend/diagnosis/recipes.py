"""The diagnosis that a recipe's rule reads: of its repair and masks, as far as that is cheap."""

from __future__ import annotations

from sparsemend.calibration import InputMoments
from sparsemend.diagnosis.diagnosis import Diagnosis
from sparsemend.diagnosis.relative_repairability import diagnose, find_residual
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.operators.affine import AFFINE
from sparsemend.recipe import Recipe
from sparsemend.recipe.defaults import DIAGNOSED_REPAIR
from sparsemend.repairs import get_repair
from sparsemend.session import Session


def recipe_diagnosis(session: Session, recipe: Recipe) -> Diagnosis:
    """The diagnosis of a session's network for a recipe; computed once.

    A rule that reads curves gets those of the repair and the masks themselves, and so does a
    search; only where a mask rule chooses with the fit and has no nested masks to stand in, so that
    the choice costs as much as a repair for every density, a search does with magnitude masks. A
    rule that reads sensitivities, which stand for more than curves do, does with these in any
    case, and what scales leave stands for what refits leave. Where a layer is too wide for d × d
    moments, a search goes by ``variance`` and magnitude masks.

    Parameters
    ----------
    session
        The dense network and its inputs.
    recipe
        Rule, mask rule and repair.
    """
    repair, mask = recipe.formula.diagnosis, recipe.mask_rule
    costly = recipe.searches and not mask.has_entries
    if mask.joint and (costly or recipe.needs_sensitivities):
        mask = MAGNITUDE
    if recipe.needs_sensitivities and get_repair(repair).refits:
        repair = AFFINE.name
    if recipe.searches and not _measured_in_full(session):
        repair, mask = DIAGNOSED_REPAIR, MAGNITUDE
    return session.once(
        ("diagnosis", find_residual(repair).name, mask.name),
        lambda: diagnose(
            session.model, session.calibration, repair, mask=mask.name, pattern=session.pattern.name
        ),
    )


def _measured_in_full(session: Session) -> bool:
    return all(isinstance(found, InputMoments) for found in session.calibration.moments.values())
