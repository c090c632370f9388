import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sparsemend.allocation import kept_total, round_to_budget, water_fill
from sparsemend.errors import SparsemendError

size_lists = st.lists(st.integers(1, 5000), min_size=1, max_size=12)
priors = st.floats(0, 1e3, allow_subnormal=False)


@st.composite
def budgets(draw, least=0):
    """Sizes, one prior per layer, and a budget of at least `least` per layer."""
    sizes = draw(size_lists)
    prior = draw(st.lists(priors, min_size=len(sizes), max_size=len(sizes)))
    return sizes, prior, draw(st.integers(least * len(sizes), sum(sizes)))


@pytest.mark.parametrize(
    ("sparsity", "total", "kept"),
    [
        (0, 7, 7),
        (0.9, 10, 1),
        (0.9, 15, 2),  # 1.5: halves keep one more
        (0.95, 10, 1),  # 0.5
        (0.995, 11_220_132, 56_101),
        (0.7, 10**15 + 5, 3 * 10**14 + 2),  # 1.5 above: (1 - 0.7) * N in floats is off
        (np.float32(0.9), 10**9, 10**8),
        (Fraction(2, 3), 9, 3),
    ],
)
def test_kept_total(sparsity, total, kept):
    assert kept_total(sparsity, total) == kept


@given(st.integers(0, 999_999), st.integers(1, 10**9))
def test_kept_total_reads_decimals_exactly(millionths, total):
    exact = Fraction(10**6 - millionths, 10**6) * total
    kept = kept_total(millionths / 10**6, total)
    assert abs(kept - exact) <= Fraction(1, 2)
    assert kept == math.floor(exact + Fraction(1, 2))


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.0, 95, math.nan, math.inf, True, False, "0.9"])
def test_kept_total_refuses(sparsity):
    with pytest.raises(SparsemendError) as caught:
        kept_total(sparsity, 100)
    assert str(caught.value) == (
        f"sparsity is out of range: got {sparsity!r}; allowed: a fraction in [0, 1); 95 % is 0.95"
    )


@given(budgets())
def test_water_fill_uses_the_budget_exactly(budget):
    sizes, prior, keep = budget
    densities = water_fill(prior, sizes, keep)
    assert sum(d * n for d, n in zip(densities, sizes, strict=True)) == keep
    assert all(0 <= d <= 1 for d in densities)


@given(budgets())
def test_water_fill_is_proportional_where_not_capped(budget):
    sizes, prior, keep = budget
    assume(any(prior))
    densities = water_fill(prior, sizes, keep)
    factors = {d / Fraction(p) for d, p in zip(densities, prior, strict=True) if p > 0 and d < 1}
    assert len(factors) <= 1
    for factor in factors:
        capped = [p for d, p in zip(densities, prior, strict=True) if d == 1]
        assert all(factor * Fraction(p) >= 1 for p in capped)


@given(budgets())
def test_water_fill_equals_fixing_the_largest_and_rescaling(budget):
    sizes, prior, keep = budget
    prior = [p + 0.001 for p in prior]
    dense = set()
    while True:
        free = [i for i in range(len(sizes)) if i not in dense]
        if not free:
            break
        factor = Fraction(keep - sum(sizes[i] for i in dense)) / sum(
            Fraction(prior[i]) * sizes[i] for i in free
        )
        largest = max(free, key=lambda i: prior[i])
        if factor * Fraction(prior[largest]) <= 1:
            break
        dense.add(largest)
    expected = [1 if i in dense else factor * Fraction(prior[i]) for i in range(len(sizes))]
    assert list(water_fill(prior, sizes, keep)) == expected


def test_water_fill_gives_layers_without_prior_what_others_cannot_take():
    assert water_fill([1, 0, 0], [10, 20, 20], 8) == (Fraction(4, 5), 0, 0)
    assert water_fill([1, 0, 0], [10, 20, 20], 20) == (1, Fraction(1, 4), Fraction(1, 4))
    assert water_fill([0, 0], [10, 30], 10) == (Fraction(1, 4), Fraction(1, 4))


@pytest.mark.parametrize("prior", [-1.0, math.nan, math.inf])
def test_water_fill_refuses_a_prior(prior):
    with pytest.raises(SparsemendError, match=f"layer number 1 is no share: got {prior!r}"):
        water_fill([1.0, prior], [10, 10], 5)


@given(budgets(least=1))
def test_round_to_budget_is_exact_and_within_bounds(budget):
    sizes, prior, keep = budget
    counts = round_to_budget(prior, sizes, keep)
    assert sum(counts) == keep
    assert all(1 <= count <= n for count, n in zip(counts, sizes, strict=True))


@given(budgets(least=1))
def test_round_to_budget_is_within_one_of_its_targets(budget):
    sizes, prior, keep = budget
    densities = water_fill(prior, sizes, keep)
    targets = [d * n for d, n in zip(densities, sizes, strict=True)]
    assume(all(target >= 1 for target in targets))
    for count, target in zip(round_to_budget(densities, sizes, keep), targets, strict=True):
        assert abs(count - target) < 1


@given(budgets(least=1))
def test_round_to_budget_loses_at_most_one_weight_when_the_budget_grows(budget):
    # Largest remainders are not monotone to the unit; one weight is the most that can go.
    sizes, prior, keep = budget
    assume(keep < sum(sizes))
    smaller = round_to_budget(prior, sizes, keep)
    larger = round_to_budget(prior, sizes, keep + 1)
    assert all(more >= fewer - 1 for more, fewer in zip(larger, smaller, strict=True))


def test_round_to_budget_breaks_ties_by_index():
    assert round_to_budget([0.1] * 4, [7] * 4, 6, minimum=0) == (2, 2, 1, 1)
    assert round_to_budget([0.0, 0.5, 0.5], [100, 5, 5], 6) == (1, 3, 2)


def test_round_to_budget_honours_a_minimum_per_layer():
    assert round_to_budget([1, 1, 1], [10, 10, 10], 14, [10, 2, 1]) == (10, 2, 2)


def test_infeasible_budgets_name_the_largest_feasible_sparsity():
    with pytest.raises(SparsemendError) as caught:
        round_to_budget([1, 1, 1], [10, 10, 10], 2)
    assert str(caught.value) == (
        "no allocation over 3 layers keeps this number of weights: got 2; "
        "allowed: 3 to 30 of 30 weights; the largest feasible sparsity is 0.9"
    )
    with pytest.raises(SparsemendError, match="allowed: 0 to 20 of 20 weights"):
        water_fill([1, 1], [10, 10], 21)


@given(size_lists)
def test_the_largest_feasible_sparsity_is_feasible(sizes):
    with pytest.raises(SparsemendError) as caught:
        round_to_budget([1] * len(sizes), sizes, 0)
    largest = float(str(caught.value).rsplit(maxsplit=1)[1])
    assert kept_total(largest, sum(sizes)) >= len(sizes)
