"""How large a difference between two rules is, and whether it may be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from benchmarks.study.cells import Pair
from sparsemend.sweeps.transition import spread

HOLDS, PARTLY, NOT_HERE, NOT_MEASURED = "holds", "partly", "not here", "not measured"
SIGNIFICANT = 0.05
# Differences of accuracies that are equal but for rounding, in points.
_EQUAL = 1e-9


@dataclass(frozen=True)
class Effect:
    """Differences of paired cells in points of top-1.

    Attributes
    ----------
    mean, std
        Over the pairs; ``std`` is None for one.
    p
        Of a paired t-test, two-sided; None where there are fewer than two pairs or all
        differences are equal. It takes cells as independent; those of one network share its
        weights and the test images, which is what ``sampling_error`` is for.
    sampling_error
        Mean standard error that the test images leave, as if all pairs erred together.
    pairs
        What it was worked out from.
    """

    mean: float
    std: float | None
    p: float | None
    sampling_error: float
    pairs: tuple[Pair, ...]

    @property
    def verdict(self) -> str:
        """What the pairs say of the claim that the difference is above 0."""
        if len(self.pairs) < 2:
            return NOT_MEASURED
        if self.mean <= 0:
            return NOT_HERE
        by_chance = self.p is None or self.p > SIGNIFICANT
        by_images = self.mean <= self.sampling_error
        if by_chance and by_images:
            return NOT_HERE
        return PARTLY if by_chance or by_images else HOLDS


def effect(pairs: Sequence[Pair]) -> Effect | None:
    """None without pairs."""
    if not pairs:
        return None
    differences = [pair.difference for pair in pairs]
    over = spread(differences)
    assert over.mean is not None, "there are differences"
    varied = over.std is not None and over.std > _EQUAL
    p = float(stats.ttest_1samp(differences, 0).pvalue) if varied else None
    error = sum(pair.sampling_error for pair in pairs) / len(pairs)
    return Effect(over.mean, over.std, p, error, tuple(pairs))
