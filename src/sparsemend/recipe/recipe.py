"""What is to be done to a network: sparsity, allocation rule, mask rule, repair and budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from sparsemend.allocation import (
    GIVEN,
    Allocation,
    Densities,
    Quota,
    WeightQuota,
    check_pattern,
    check_rule,
    kept_total,
    needs_columns,
    needs_diagnosis,
    needs_sensitivities,
)
from sparsemend.errors import SparsemendError
from sparsemend.evaluation import Criterion, LossFunction
from sparsemend.layers import LayerFilter
from sparsemend.masks import MaskRule, default_mask, get_mask_rule
from sparsemend.patterns import parse_pattern
from sparsemend.recipe.budget import Budget, parse_budget
from sparsemend.recipe.defaults import (
    AUTO,
    BRANCHES,
    JUDGE,
    NEW_BIASES,
    PATTERN,
    PLANNED_SECONDS,
    REPAIR,
    SCOPE,
    SEARCHES,
    searched_rule,
)
from sparsemend.recipe.training import parse_distill
from sparsemend.repairs import SCOPES, DistillSettings, Formula, parse_repair
from sparsemend.session import Session
from sparsemend.targets import Target

PLANNED_TIME = f"{PLANNED_SECONDS:g}s"


@dataclass(frozen=True)
class Recipe:
    """One way to make a network sparse; read and checked when it is made.

    Attributes
    ----------
    sparsity
        Fraction of all prunable weights to remove, in [0, 1); None where there is a target. Of a
        pattern that has one it may be left out, and becomes that.
    rule
        Name of an allocation rule, ``"auto"`` for a search, ``"branches"`` for one of residual
        branches to give up, or an allocation of that sparsity; or
        densities of layers, which say the sparsity themselves, as an allocation does.
        Where neither a rule nor a repair is given, both are planned for the time that the budget
        says, and stay None; where only a repair is given, ``"auto"``.
    mask
        Name of a mask rule; empty or None for the default of the repair, which it then becomes.
    repair
        Formula of a repair; other spellings become the canonical one. Where only a rule is
        given, ``"best"``.
    scope
        ``"sequential"`` or ``"one-shot"``.
    budget
        Of rule ``auto``: a number of repairs or a time, as text; of a plan: a time, or a number
        of repairs, which means rule ``auto``. None for all other rules.
    judge, output
        How closeness to the dense network is judged, and on which part of the output, as in
        :func:`sparsemend.agreement`.
    new_biases
        Whether layers that have neither a bias nor a BatchNorm behind them may get a bias; else
        they are repaired without a shift, and no parameter is added.
    include, exclude
        Which layers are pruned, as in :func:`sparsemend.discover`; become tuples.
    pattern
        Which of their weights can be kept; becomes canonical.
    distill
        How long repair ``distill`` trains, as text: a number of steps or a time. None for repairs
        that do not train; ``best`` does where it is given.
    target
        What the sparse network may cost, in the place of a sparsity.

    Raises
    ------
    SparsemendError
        For anything unknown, or what does not go together.

    Examples
    --------
    >>> recipe = Recipe(0.9, "erk", repair="variance+batchnorm(ema)")
    >>> recipe.mask, recipe.repair
    ('magnitude', 'variance+batchnorm-ema')
    """

    sparsity: float | None = None
    rule: str | Allocation | Densities | Mapping[str, float] | None = None
    mask: str | None = None
    repair: str | None = None
    scope: str = SCOPE
    budget: float | str | None = None
    judge: str | LossFunction = JUDGE
    output: str | int | None = None
    new_biases: bool = NEW_BIASES
    include: str | Iterable[str] = ()
    exclude: str | Iterable[str] = ()
    pattern: str = PATTERN
    distill: float | str | None = None
    target: Target | None = None

    def __post_init__(self) -> None:
        pattern = parse_pattern(self.pattern)
        if self.sparsity is not None:
            kept_total(self.sparsity, 1)
        object.__setattr__(self, "sparsity", pattern.sparsity(self.sparsity))
        if isinstance(self.rule, Allocation) and self.sparsity is None and self.target is None:
            object.__setattr__(self, "sparsity", self.rule.sparsity)
        elif isinstance(self.rule, Mapping) and not isinstance(self.rule, Allocation):
            object.__setattr__(self, "rule", Densities.read(self.rule))
        given = self.rule is not None or self.repair is not None
        if given or not math.isfinite(self._planned_time.seconds):
            by_default = searched_rule(pattern)
            object.__setattr__(self, "rule", by_default if self.rule is None else self.rule)
            object.__setattr__(self, "repair", REPAIR if self.repair is None else self.repair)
        formula = self.formula
        if isinstance(self.rule, str) and self.rule not in SEARCHES:
            check_rule(self.rule, SEARCHES)
        if isinstance(self.rule, str | Densities):
            check_pattern(pattern, self.rule_name)
        self._check_allocation()
        rule, chosen = _read_mask(self.mask or None, formula), self.chosen
        mask = (self.mask or None) if self.planned else rule.name
        if self.scope not in SCOPES:
            raise SparsemendError("unknown repair scope", self.scope, ", ".join(SCOPES))
        for name, value in (
            ("repair", None if self.planned else str(formula)),
            ("mask", mask),
            ("budget", self._read_budget()),
            ("output", self.criterion.output or None),
            ("include", chosen.include),
            ("exclude", chosen.exclude),
            ("pattern", pattern.name),
            ("distill", self._read_distill(formula)),
        ):
            object.__setattr__(self, name, value)

    @property
    def planned(self) -> bool:
        """Whether rule and repair are planned for a time."""
        return self.rule is None

    @cached_property
    def formula(self) -> Formula:
        """The repair; of a plan, the one that there would be with more time."""
        return parse_repair(REPAIR if self.repair is None else self.repair)

    @property
    def mask_rule(self) -> MaskRule:
        """The mask rule."""
        return _read_mask(self.mask, self.formula)

    @property
    def _planned_time(self) -> Budget:
        return parse_budget(PLANNED_TIME if self.budget is None else self.budget)

    @property
    def limit(self) -> Budget:
        """How long a search may take."""
        return parse_budget(self.budget)

    @property
    def training(self) -> DistillSettings | None:
        """How long the repair trains; None where it does not."""
        return parse_distill(self.distill, self.formula)

    @property
    def criterion(self) -> Criterion:
        """How outputs are judged."""
        return Criterion(self.judge, self.output)

    @property
    def chosen(self) -> LayerFilter:
        """Which layers are pruned, and in which pattern."""
        return LayerFilter.of(self.include, self.exclude, self.pattern)

    @property
    def searches(self) -> bool:
        """Whether the allocation is searched for."""
        return self.rule == AUTO

    @property
    def tries_branches(self) -> bool:
        """Whether it is tried which residual branches to give up."""
        return self.rule == BRANCHES

    @property
    def judges(self) -> bool:
        """Whether something is chosen by closeness on inputs that no repair sees."""
        return self.planned or self.rule in SEARCHES or self.formula.judges

    @property
    def rule_name(self) -> str:
        """Name of the rule, also of that which made a given allocation."""
        if isinstance(self.rule, Densities):
            return GIVEN
        return self.rule.rule if isinstance(self.rule, Allocation) else str(self.rule)

    @property
    def needs_diagnosis(self) -> bool:
        """Whether the rule reads a diagnosis."""
        return isinstance(self.rule, str) and not self.searches and needs_diagnosis(self.rule)

    @property
    def needs_sensitivities(self) -> bool:
        """Whether the diagnosis has to have sensitivities, too."""
        return self.needs_diagnosis and needs_sensitivities(self.rule_name)

    @property
    def needs_columns(self) -> bool:
        """Whether the rule reads how large the layers' inputs are."""
        return isinstance(self.rule, str) and needs_columns(self.rule)

    def quota(self, session: Session) -> Quota:
        """What the layers of a network may keep.

        Raises
        ------
        SparsemendError
            If the sparsity cannot be had, or it is not known what the network costs.
        """
        if self.target is not None:
            return self.target.quota(session.model, session.layers, session.seen[0])
        assert self.sparsity is not None, "a recipe has one of both"
        return WeightQuota.of(session.layers, self.sparsity)

    def given(self, allocation: Allocation, **changes: Any) -> Recipe:
        """The same with an allocation, which is what a target has led to."""
        sparsity = self.sparsity if self.target is None else allocation.sparsity
        return replace(self, rule=allocation, sparsity=sparsity, target=None, **changes)

    def check(self, model: nn.Module) -> None:
        """Refuse what a network cannot have, before any work."""
        if not self.planned:
            self.formula.check(model, self.scope)

    def _check_allocation(self) -> None:
        if isinstance(self.rule, Allocation | Densities) and self.target is not None:
            raise SparsemendError(
                f"{says_itself(self.rule, self.pattern)} says itself how many weights are kept",
                str(self.target),
                fix="leave out one of the two",
            )
        if isinstance(self.rule, Densities):
            return
        if (self.sparsity is None) == (self.target is None):
            raise SparsemendError(
                "a recipe has one budget",
                f"sparsity {self.sparsity}, target {self.target}",
                "either a sparsity or a target",
            )
        if not isinstance(self.rule, Allocation) or self.sparsity is None:
            return
        if self.pattern != PATTERN:  # how near it can come is known with the layers
            return
        wanted = kept_total(self.sparsity, self.rule.total)
        if self.rule.kept != wanted:
            raise SparsemendError(
                "the allocation is of another sparsity",
                f"{self.rule.kept} weights kept",
                f"{wanted} of {self.rule.total}, as sparsity {self.sparsity:g} asks for",
                f"pass sparsity={self.rule.sparsity!r}",
            )

    def _read_distill(self, formula: Formula) -> str | None:
        if self.planned and self.distill is not None:
            raise SparsemendError(
                "a plan has its own time, so there is no use for distill",
                self.distill,
                fix="say which rule or repair, such as repair='best'",
            )
        settings = parse_distill(self.distill, formula)
        return None if settings is None else str(settings)

    def _read_budget(self) -> str | None:
        if self.planned:
            return str(self._planned_time)
        limit = parse_budget(self.budget)
        if self.budget is not None and not self.searches:
            raise SparsemendError(
                f"rule {self.rule_name!r} does not search, so it has no budget",
                self.budget,
                f"rule {AUTO!r}",
            )
        return str(limit) if self.searches else None


def says_itself(rule: object, pattern: str) -> str:
    """What of these says how many weights are kept, in words; empty where nothing does."""
    if parse_pattern(pattern).density is not None:
        return f"pattern {pattern!r}"
    if isinstance(rule, Allocation):
        return "an allocation"
    return "a density of each layer" if isinstance(rule, Mapping | Densities) else ""


def _read_mask(name: str | None, formula: Formula) -> MaskRule:
    """The mask rule that is meant, or an error where it cannot go with the repair."""
    if name is None:
        return default_mask(formula.chooses_masks)
    rule = get_mask_rule(name)
    if rule.joint and not formula.chooses_masks:
        raise SparsemendError(
            f"mask {name!r} is chosen jointly with the reconstructed values, but repair is",
            str(formula),
            "'reconstruct', 'reconstruct+batchnorm' or 'best'",
            "choose one of these, or mask 'magnitude'",
        )
    return rule
