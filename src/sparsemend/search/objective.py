"""What a search minimises: KL(dense ‖ repaired) on inputs that no repair sees."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence

from torch import nn

from sparsemend.calibration import Calibration
from sparsemend.errors import SparsemendWarning
from sparsemend.evaluation import Reference
from sparsemend.execution.batches import Batch, batch_size, split_inputs
from sparsemend.layers import LayerSet
from sparsemend.masks import JOINT, apply_masks, choose_masks
from sparsemend.repairs import RepairPlan, Settings, Support, parse_repair, run_plan
from sparsemend.search.directions import Array
from sparsemend.search.slopes import Restored, at_the_margin, density_slopes
from sparsemend.solvers import Schedule

# A cheap trial: a part of the calibration inputs, and of the rounds of a reconstruction.
_PROXY_INPUTS = 0.25
_PROXY_SETTINGS = Settings(
    refits=1,
    reselections=0,
    logit_refits=10,
    schedule=Schedule(iterations=24, shrink=16, every=4, growth=1.69),
)
# What the fewer rounds leave of the cost of a reconstruction.
_PROXY_ROUNDS = 0.5


def start_support(
    sparse: nn.Module,
    dense: nn.Module,
    counts: Mapping[str, int],
    mask: str,
    calibration: Calibration | None = None,
) -> Support:
    """Choose the masks and apply them in place, unless the repair is to choose them.

    Parameters
    ----------
    sparse
        The network to prune; still equal to ``dense``.
    dense
        The dense network.
    counts
        Layer name → number of weights to keep.
    mask
        Mask rule, or ``gradual``.
    calibration
        For mask rules that need it.
    """
    if mask == JOINT:
        return Support(counts, None)
    masks = choose_masks(dense, counts, mask, calibration=calibration)
    apply_masks(sparse, masks)
    return Support(counts, masks)


class Objective:
    """Prunes and repairs copies of a network and says how far they are from it.

    Parameters
    ----------
    dense
        The dense network; unchanged.
    batches
        Unlabelled inputs to repair with.
    heldout
        Inputs to judge on, none of them in ``batches``. Cheap trials are judged on the rest of
        ``batches`` instead: hundreds of trials would fit what confirms them.
    layers
        Its layers.
    mask, plan, scope
        Mask rule and repair. For repair ``best`` trials are reconstructions.
    calibration
        For mask rules that need it.
    progress
        Show a bar for every repair; default on a terminal.

    Held in memory: the inputs, the dense network's logits for them, and the network of the last
    real repair.
    """

    def __init__(
        self,
        dense: nn.Module,
        batches: Sequence[Batch],
        heldout: Sequence[Batch],
        layers: LayerSet,
        mask: str,
        plan: RepairPlan,
        scope: str = "sequential",
        calibration: Calibration | None = None,
        progress: bool | None = None,
    ) -> None:
        self._dense, self._batches = dense, batches
        self._judge = Reference(dense, heldout)
        self._layers, self._mask, self._scope = layers, mask, scope
        self._plan = parse_repair("reconstruct") if plan.best else plan
        self._calibration, self._progress = calibration, progress
        self._last: tuple[dict[str, int], nn.Module] | None = None
        self._few, rest = split_inputs(batches, lambda n: max(1, round(_PROXY_INPUTS * n)))
        self._quick_judge = Reference(dense, rest) if rest else self._judge

    # A forward and a backward pass, of the dense network a forward one, two rankings of weights.
    slope_cost = 1.0

    @property
    def proxy_cost(self) -> float:
        """Cost of :meth:`proxy` as a share of that of :meth:`exact`."""
        rounds = _PROXY_ROUNDS if self._plan.reconstructs else 1.0
        inputs = [sum(map(batch_size, batches)) for batches in (self._few, self._batches)]
        return rounds * inputs[0] / inputs[1]

    def exact(self, counts: Mapping[str, int]) -> float:
        """KL after the real repair, in nats; infinite where outputs are no numbers."""
        return _kl(self._judge, self._network(counts))

    def proxy(self, counts: Mapping[str, int]) -> float:
        """KL after a cheaper repair, of fewer inputs and rounds; comparable among themselves."""
        model = self._repaired(counts, self._few, _PROXY_SETTINGS, False)
        return _kl(self._quick_judge, model)

    def slopes(self, counts: Mapping[str, int]) -> Array | None:
        """d KL / d log density of every layer after the real repair, on the inputs it repairs with.

        Costs :attr:`slope_cost` repairs where these counts had the last real repair. None where
        weights are refitted: dense values then do not say what a further weight would bring.
        """
        if self._plan.reconstructs or self._mask == JOINT:
            return None
        marginal, ratios = at_the_margin(
            self._dense, self._layers, counts, self._mask, self._calibration
        )
        return density_slopes(
            self._network(counts),
            self._dense,
            self._batches,
            self._layers,
            marginal,
            ratios,
            restored=_restored(self._plan),
        )

    def _network(self, counts: Mapping[str, int]) -> nn.Module:
        """After the real repair; the last one is kept."""
        key = dict(counts)
        if self._last is None or self._last[0] != key:
            self._last = None  # before the next is made: one at a time
            self._last = key, self._repaired(counts, self._batches, None, self._progress)
        return self._last[1]

    def _repaired(
        self,
        counts: Mapping[str, int],
        batches: Sequence[Batch],
        settings: Settings | None,
        progress: bool | None,
    ) -> nn.Module:
        model = copy.deepcopy(self._dense)
        support = start_support(model, self._dense, counts, self._mask, self._calibration)
        with warnings.catch_warnings():
            # What there is to say of the winner, its own repair says; of the others, nobody.
            warnings.simplefilter("ignore", SparsemendWarning)
            run_plan(
                model,
                self._dense,
                batches,
                self._layers,
                self._plan,
                self._scope,
                support,
                progress,
                settings,
            )
        return model


def _restored(plan: RepairPlan) -> Restored:
    """Where a repair brings means and variances back, whatever the weights are."""
    if plan.batchnorm:
        return "norms"
    return "nothing" if plan.operator is None or plan.operator.name == "none" else "layers"


def _kl(judge: Reference, model: nn.Module) -> float:
    kl = judge.agreement(model).kl
    return math.inf if math.isnan(kl) else kl  # NaN would compare as no worse than anything
