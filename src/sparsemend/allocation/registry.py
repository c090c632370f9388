"""The known allocation rules by name; a new one is one more entry."""

from __future__ import annotations

from collections.abc import Sequence

from sparsemend.allocation.erk import ERK
from sparsemend.allocation.forced import parse_forced
from sparsemend.allocation.global_magnitude import GLOBAL
from sparsemend.allocation.lamp import LAMP
from sparsemend.allocation.owl import OWL
from sparsemend.allocation.rr import RR
from sparsemend.allocation.rr_density import RR_DENSITY
from sparsemend.allocation.rule import Rule
from sparsemend.allocation.sensitivity import SENSITIVITY
from sparsemend.allocation.uniform import UNIFORM
from sparsemend.allocation.uniform_plus import UNIFORM_PLUS
from sparsemend.errors import SparsemendError, did_you_mean

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (UNIFORM, UNIFORM_PLUS, GLOBAL, ERK, LAMP, OWL, RR, RR_DENSITY, SENSITIVITY)
}


def rule_names() -> tuple[str, ...]:
    """Names of the known rules."""
    return tuple(RULES)


def get_rule(name: str, besides: Sequence[str] = ()) -> Rule:
    """The rule of this name.

    Parameters
    ----------
    name
        As users write it.
    besides
        What else they could have meant, for the error text.

    Raises
    ------
    SparsemendError
        If there is none; names the known ones.
    """
    known = (*RULES, *besides)
    if isinstance(name, str) and name in RULES:
        return RULES[name]
    raise SparsemendError(
        "unknown allocation rule",
        name,
        ", ".join(map(repr, known)),
        did_you_mean(name, known),
    )


def check_rule(name: str, besides: Sequence[str] = ()) -> None:
    """Refuse an unknown rule, or a forced one (``"erk[projection=lamp]"``) of unknown parts."""
    parts = _parts(name)
    for part in parts:
        get_rule(part, besides if len(parts) == 1 else ())


def needs_columns(name: str) -> bool:
    """Whether a rule, or a part of a forced one, needs mean squares of the layers' inputs."""
    return any(rule.needs == "columns" for rule in _known(name))


def needs_diagnosis(name: str) -> bool:
    """Whether a rule, or a part of a forced one, needs a diagnosis; unknown ones do not."""
    return any(rule.diagnosed for rule in _known(name))


def needs_sensitivities(name: str) -> bool:
    """Whether the diagnosis has to have sensitivities, too."""
    return any(rule.needs == "sensitivities" for rule in _known(name))


def _known(name: str) -> list[Rule]:
    return [RULES[part] for part in _parts(name) if isinstance(part, str) and part in RULES]


def _parts(name: str) -> tuple[str, ...]:
    forced = parse_forced(name)
    return (name,) if forced is None else (forced.base, forced.source)
