import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.allocation import RULES, round_to_budget, water_fill
from sparsemend.allocation.erk import erk_prior
from sparsemend.errors import SparsemendError

from .networks import Curves, make_layers, make_problem, random_curves

rr_density = RULES["rr-density"].counts
LAYERS = make_layers([(100, 100), (100, 200), (50, 40, 3, 3)])


def curves_of(densities, values):
    rr = np.asarray(values, dtype=float)
    names = [layer.name for layer in LAYERS]
    return Curves(names, np.asarray(densities, dtype=float), rr, rr, rr)


@pytest.mark.parametrize("prior", ["uniform", "erk"])
@given(values=st.lists(st.floats(0.01, 2), min_size=3, max_size=3))
def test_proportional_where_not_capped(prior, values):
    curves = curves_of([0.05, 0.5], [[value, 9.0] for value in values])
    keep = sum(layer.size for layer in LAYERS) // 20
    counts = rr_density(make_problem(LAYERS, keep, diagnosis=curves, sparsity=0.95), prior=prior)
    shares = [
        Fraction(value) * (erk_prior(layer) if prior == "erk" else 1)
        for value, layer in zip(values, LAYERS, strict=True)
    ]
    factor = Fraction(keep) / sum(s * layer.size for s, layer in zip(shares, LAYERS, strict=True))
    assert sum(counts) == keep
    if max(shares) * factor <= 1:
        for count, share, layer in zip(counts, shares, LAYERS, strict=True):
            # 1 for the rounding, 1e-6 for 1 − 0.95 not being the grid's 0.05 to the last bit.
            assert abs(count - factor * share * layer.size) < 1 + 1e-6 * layer.size


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (0.999, [1, 2, 4]),
        (0.9, [1, 2, 4]),
        (0.7, [1.5, 2, 2.5]),
        (0.5, [2, 2, 1]),
        (0.1, [2, 2, 1]),
    ],
)
def test_interpolates_and_stays_constant_beyond_the_grid(sparsity, expected):
    curves = curves_of([0.1, 0.5], [[1, 2], [2, 2], [4, 1]])
    sizes = [layer.size for layer in LAYERS]
    keep = 6000
    counts = rr_density(make_problem(LAYERS, keep, diagnosis=curves, sparsity=sparsity))
    reference = round_to_budget(water_fill(expected, sizes, keep), sizes, keep)
    assert counts == pytest.approx(reference, abs=1)


def test_points_without_rr_are_left_out():
    nan = np.nan
    curves = curves_of([0.1, 0.5, 1.0], [[1, 3, nan], [nan, 2, nan], [2, nan, nan]])
    expected = rr_density(
        make_problem(
            LAYERS,
            4000,
            diagnosis=curves_of([0.1, 0.5, 1.0], [[1, 3, 3], [2, 2, 2], [2, 2, 2]]),
            sparsity=0.3,
        )
    )
    assert rr_density(make_problem(LAYERS, 4000, diagnosis=curves, sparsity=0.3)) == expected


def test_a_layer_without_any_rr_is_named():
    curves = curves_of([0.1, 0.5], [[1, 3], [np.nan, np.nan], [2, 1]])
    with pytest.raises(SparsemendError) as caught:
        rr_density(make_problem(LAYERS, 4000, diagnosis=curves))
    assert str(caught.value) == (
        "layer 'layer1' has no RR in the diagnosis: nothing was pruned there, or its weights "
        "do nothing: got [nan, nan]; allowed: a finite value at one density at least; "
        "diagnose at lower densities, or use rule 'rr'"
    )


def test_repairable_layers_keep_one_weight_until_the_others_are_dense():
    curves = curves_of([0.1], [[1], [0], [-1e-17]])
    assert rr_density(make_problem(LAYERS, 4000, diagnosis=curves)) == (3998, 1, 1)
    counts = rr_density(make_problem(LAYERS, 14_000, diagnosis=curves))
    assert counts == pytest.approx((10_000, 4000 * 20 / 38, 4000 * 18 / 38), abs=1)


def test_unknown_prior():
    problem = make_problem(LAYERS, 4000, diagnosis=random_curves(LAYERS))
    with pytest.raises(SparsemendError, match=r"unknown prior of rule 'rr-density': got 'lamp'"):
        rr_density(problem, prior="lamp")


def test_needs_a_diagnosis():
    with pytest.raises(SparsemendError, match="rule 'rr-density' needs a diagnosis"):
        rr_density(make_problem(LAYERS, 4000))
    curves = dataclasses.replace(random_curves(LAYERS), layers=["a", "b", "c"])
    with pytest.raises(SparsemendError, match="the diagnosis is of other layers"):
        rr_density(make_problem(LAYERS, 4000, diagnosis=curves))
