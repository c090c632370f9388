import dataclasses
import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.allocation import RULES
from sparsemend.allocation.rr import count_curve, lower_hull
from sparsemend.errors import SparsemendError

from .networks import Curves, make_layers, make_problem, networks, random_curves

rr = RULES["rr"].counts


def curves_of(residual):
    """Curves over the densities 1/K … K/K."""
    residual = np.asarray(residual, dtype=float)
    densities = np.arange(1, residual.shape[1] + 1) / residual.shape[1]
    names = [f"layer{i}" for i in range(len(residual))]
    return Curves(names, densities, residual, residual, residual)


def damage(points, count):
    """Piecewise linear through points, the first piece extended below."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if count <= x1:
            return y0 + (y1 - y0) * Fraction(count - x0, x1 - x0)
    return points[-1][1]


@st.composite
def convex_cases(draw):
    """A few layers with convex falling curves ending in 0, sizes multiples of the grid."""
    steps = draw(st.integers(2, 4))
    residual, sizes = [], []
    for _ in range(draw(st.integers(1, 4))):
        multiple = draw(st.integers(1, 2))
        drops = sorted(draw(st.lists(st.integers(0, 9), min_size=steps - 1, max_size=steps - 1)))
        residual.append(np.cumsum([0, *drops])[::-1])
        sizes.append(steps * multiple)
    keep = draw(st.integers(len(sizes), sum(sizes)))
    return curves_of(residual), make_layers([(1, n) for n in sizes]), keep


@given(convex_cases())
def test_equals_brute_force_on_convex_curves(case):
    curves, layers, keep = case
    points = [
        count_curve(curves.densities, row, layer)
        for row, layer in zip(curves.residual, layers, strict=True)
    ]

    def total(counts):
        return sum(damage(p, c) for p, c in zip(points, counts, strict=True))

    counts = rr(make_problem(layers, keep, diagnosis=curves))
    assert sum(counts) == keep
    every = itertools.product(*(range(1, layer.size + 1) for layer in layers))
    assert total(counts) == min(total(other) for other in every if sum(other) == keep)


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 40)), min_size=1, max_size=9))
def test_hull_is_convex_below_and_touches(steps):
    xs = itertools.accumulate(step for step, _ in steps)
    points = [(x, Fraction(y)) for x, (_, y) in zip(xs, steps, strict=True)]
    hull = lower_hull(points)
    assert set(hull) <= set(points)
    assert (hull[0], hull[-1]) == (points[0], points[-1])
    slopes = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in itertools.pairwise(hull)]
    assert all(a < b for a, b in itertools.pairwise(slopes))
    assert all(damage(hull, x) <= y for x, y in points)


def test_concave_stretches_are_bridged():
    # The first layer heals only when it is dense: all or nothing, and here all is better.
    curves = curves_of([[8.0, 8.0, 8.0, 0.0], [4.0, 3.0, 2.0, 0.0]])
    layers = make_layers([(1, 4), (1, 4)])
    assert rr(make_problem(layers, 5, diagnosis=curves)) == (4, 1)


def test_equal_slopes_go_to_the_earlier_layer():
    curves = curves_of([[3.0, 2.0, 1.0, 0.0]] * 3)
    assert rr(make_problem(make_layers([(1, 4)] * 3), 7, diagnosis=curves)) == (4, 2, 1)


def test_damage_that_grows_with_density_is_bought_last():
    curves = curves_of([[0.0, 0.1, 0.2, 0.3], [3.0, 2.0, 1.0, 0.0]])
    layers = make_layers([(1, 4)] * 2)
    assert rr(make_problem(layers, 5, diagnosis=curves)) == (1, 4)
    assert rr(make_problem(layers, 7, diagnosis=curves)) == (3, 4)


def test_first_segment_goes_on_below_the_grid():
    densities = np.array([0.5, 1.0])
    residual = np.array([[1.0, 0.0], [3.0, 0.0]])
    curves = Curves(["layer0", "layer1"], densities, residual, residual, residual)
    layers = make_layers([(1, 100), (1, 100)])
    assert rr(make_problem(layers, 30, diagnosis=curves)) == (1, 29)
    assert rr(make_problem(layers, 120, diagnosis=curves)) == (20, 100)


def test_a_grid_that_stops_early_ends_in_no_damage():
    points = count_curve(np.array([0.1, 0.5]), np.array([2.0, 1.0]), *make_layers([(1, 10)]))
    assert points == [(1, 2), (5, 1), (10, 0)]


def test_small_layers_merge_grid_points():
    densities = np.array([0.01, 0.02, 0.4, 0.6, 1.0])
    values = np.array([5.0, 4.0, 3.0, 2.0, 0.0])
    assert count_curve(densities, values, *make_layers([(1, 3)])) == [(1, 5), (2, 2), (3, 0)]
    assert count_curve(densities, values, *make_layers([(1, 1)])) == [(1, 5)]


@given(networks, st.integers(0, 1000), st.data())
def test_counts_grow_with_the_budget(layers, seed, data):
    curves = random_curves(layers, seed)
    total = sum(layer.size for layer in layers)
    keep = data.draw(st.integers(len(layers), total))
    more = data.draw(st.integers(keep, total))
    smaller = rr(make_problem(layers, keep, diagnosis=curves))
    larger = rr(make_problem(layers, more, diagnosis=curves))
    assert all(a <= b for a, b in zip(smaller, larger, strict=True))


def test_residuals_must_be_numbers():
    layers = make_layers([(2, 2), (3, 3)])
    curves = random_curves(layers, points=3)
    residual = curves.residual.copy()
    residual[1, 1] = np.nan
    problem = make_problem(layers, 4, diagnosis=dataclasses.replace(curves, residual=residual))
    with pytest.raises(SparsemendError, match=r"residual of layer 'layer1' .* is no number: got"):
        rr(problem)
