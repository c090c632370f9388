"""What a sweep computes: cells of a grid, the record of each, and the transitions they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sparsemend.recipe import Recipe
from sparsemend.recipe.defaults import JUDGE, PATTERN
from sparsemend.targets import Target

Measure = Literal["accuracy", "agreement"]


@dataclass(frozen=True, order=True)
class Cell:
    """One configuration of a sweep.

    Attributes
    ----------
    network
        Name of the network.
    rule, mask, repair
        As in :func:`sparsemend.compress`, the mask spelled out.
    sparsity
        Fraction of all prunable weights to remove, in [0, 1); None where there is a target.
    seed
        Draws the calibration inputs.
    target
        What the network may cost in the place of a sparsity: the kind and its limit, a share,
        seconds or bytes, as in ``"flops 0.1"``, ``"latency 0.002"`` or ``"size 102400.0"``; empty
        where there is a sparsity.
    """

    network: str
    rule: str
    mask: str
    repair: str
    sparsity: float | None
    seed: int
    target: str = ""

    @property
    def parsed_target(self) -> Target | None:
        """The target; None where there is a sparsity."""
        return Target.parse(self.target) if self.target else None

    def __str__(self) -> str:
        what = f"{self.network} {self.rule} {self.mask} {self.repair}"
        budget = f"{self.sparsity:g}" if self.parsed_target is None else str(self.parsed_target)
        return f"{what} at {budget}, seed {self.seed}"


@dataclass(frozen=True)
class Settings:
    """What else a cell's result depends on; most go with network and seed.

    Attributes
    ----------
    scope
        Of the repair, as in :func:`sparsemend.compress`.
    calibration_size, heldout_size, test_size
        Number of inputs to calibrate and repair with, to measure agreement on (0: on the
        calibration inputs), and to measure accuracy on (0 without labels).
    batch_size
        Of the first calibration batch.
    weights, inputs, test
        Fingerprints of the dense network, of the calibration and held-out inputs, and of the
        labelled inputs (empty without).
    budget
        Of a search, as :func:`sparsemend.compress` takes it; empty for rules that do not search.
    diagnosis
        Fingerprint of the diagnosis that the rule was given; empty where it reads none, or the
        one of the cell's own mask and repair.
    judge, output
        How closeness was judged, as it was asked for, of a function its name; and on which part
        of the output, empty for all.
    include, exclude
        Which layers were pruned, as in :func:`sparsemend.compress`, in alphabetical order.
    new_biases
        Whether layers that have neither a bias nor a BatchNorm behind them got a bias. True as
        well where the network has no such layers: it makes no difference there.
    distill
        How long the repair trained, as :func:`sparsemend.compress` takes it; empty where it did
        not.
    pattern
        Which weights could be kept.
    """

    scope: str
    calibration_size: int
    heldout_size: int
    test_size: int
    batch_size: int
    weights: str
    inputs: str
    test: str
    budget: str = ""
    diagnosis: str = ""
    judge: str = JUDGE
    output: str = ""
    new_biases: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    distill: str = ""
    pattern: str = PATTERN


@dataclass(frozen=True)
class Task:
    """A cell to compute, and with what."""

    cell: Cell
    settings: Settings

    @property
    def recipe(self) -> Recipe:
        """What is done to the network; its layers and how it is judged go with the network."""
        cell, settings = self.cell, self.settings
        budget = settings.budget or None
        return Recipe(
            cell.sparsity,
            cell.rule,
            cell.mask,
            cell.repair,
            settings.scope,
            budget,
            new_biases=settings.new_biases,
            pattern=settings.pattern,
            distill=settings.distill or None,
            target=cell.parsed_target,
        )


@dataclass(frozen=True)
class Failure:
    """A cell that has no result, and why."""

    cell: Cell
    error: str
    settings: Settings | None = None


@dataclass(frozen=True)
class Record:
    """What one cell gave.

    Attributes
    ----------
    cell
        The configuration.
    achieved_sparsity
        Of the exact integer counts.
    top1_dense, top1_pruned, top1_repaired
        Accuracy as a fraction, of the dense network, pruned before repair, and repaired; None
        where there are no labels.
    chance
        Accuracy of guessing: 1 / number of classes; None where outputs are no class scores.
    kl
        Mean loss on inputs that the repair did not see, in the unit of ``judged``: for class
        scores KL(dense ‖ repaired) in nats. Where no inputs are held out
        (``settings.heldout_size`` is 0), on the calibration inputs. Rule ``auto`` and repair
        ``best`` choose by it, so theirs is a little optimistic.
    agreement
        Fraction of these inputs on which both networks choose the same class; None where
        outputs are not judged as class scores.
    matrix_sparsity, parameter_sparsity
        Fraction removed of all weights that the network multiplies with, whether they are layers
        or were left out, and of all its parameters; None in cells of stores that did not keep it.
    kept_multiplications
        Share of the dense network's multiplications that is left where zeros are skipped, of those
        with weights; None in cells of stores that did not keep it.
    reached
        What the network costs that was made for a target: a share, seconds or bytes. None where
        there is a sparsity.
    seconds
        Wall-clock time of the cell.
    versions
        Package → version that computed it.
    densities
        Layer name → fraction of its weights that was kept, in execution order.
    kept_repair
        The repair that was run: of ``best``, the ending that it kept. Empty in cells of stores
        that did not keep it.
    judged
        Names of the judges, as in ``"kl"`` or ``"kl+relative"``.
    recovered
        Recovery without labels, as the judges define it; None where it is not defined, and in
        cells of stores that did not keep it.
    settings
        What else the result depends on.
    """

    cell: Cell
    achieved_sparsity: float
    top1_dense: float | None
    top1_pruned: float | None
    top1_repaired: float | None
    chance: float | None
    kl: float
    agreement: float | None
    seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)
    densities: Mapping[str, float] = field(default_factory=dict)
    kept_repair: str = ""
    judged: str = "kl"
    recovered: float | None = None
    matrix_sparsity: float | None = None
    parameter_sparsity: float | None = None
    kept_multiplications: float | None = None
    reached: float | None = None
    settings: Settings | None = None

    def recovery(self, measure: Measure) -> float | None:
        """R = (A − chance) / (A_dense − chance); A_dense = 1 for agreement (method, section 6).

        For outputs that are no class scores, agreement is what their judge takes for it. None
        where it is not defined: without labels, and where the dense network only guesses.
        """
        if measure == "agreement":
            if self.recovered is not None or self.agreement is None or self.chance is None:
                return self.recovered
            return (self.agreement - self.chance) / (1 - self.chance)
        if self.top1_repaired is None or self.top1_dense is None or self.chance is None:
            return None
        if self.guesses:
            return None
        return (self.top1_repaired - self.chance) / (self.top1_dense - self.chance)

    @property
    def guesses(self) -> bool:
        """Whether the dense network is no better than guessing, so that nothing can be lost."""
        if self.top1_dense is None or self.chance is None:
            return False
        return self.top1_dense <= self.chance


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over calibration seeds; ``count`` seeds had a value.

    ``mean`` is None where no seed had one, ``std`` where fewer than two had.
    """

    mean: float | None
    std: float | None
    count: int


@dataclass(frozen=True)
class Transition:
    """The recoverability transition of one (network, rule, mask, repair) (method, section 6).

    Attributes
    ----------
    network, rule, mask, repair
        Whose transition it is.
    measure
        ``"accuracy"`` or, without labels, ``"agreement"``.
    midpoint
        Sparsity at which the recovery is 0.5, by monotone interpolation over the sweep.
    start, end
        Sparsities at which the recovery falls to 0.8 and to 0.2: the band.
    """

    network: str
    rule: str
    mask: str
    repair: str
    measure: Measure
    midpoint: Spread
    start: Spread
    end: Spread


@dataclass(frozen=True)
class Lead:
    """A stretch of sparsities over which one rule recovers most.

    Attributes
    ----------
    network, mask, repair, measure
        Where the rules are compared.
    rule
        The leading rule.
    start, end
        Sparsities between which it leads: ends of the sweep, or crossings with another rule.
    margin
        Its largest lead in recovery over the next rule there; None where it was not worked out.
    """

    network: str
    mask: str
    repair: str
    measure: Measure
    rule: str
    start: float
    end: float
    margin: float | None = None
