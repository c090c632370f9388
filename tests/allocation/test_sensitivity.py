import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsemend.allocation import RULES
from sparsemend.allocation.rr import count_curve, lower_hull
from sparsemend.errors import SparsemendError

from .networks import Curves, make_layers, make_problem, networks, random_curves, random_weights

sensitivity, lamp, rr = (RULES[name].counts for name in ("sensitivity", "lamp", "rr"))
DENSITIES = np.array([0.25, 0.5, 0.75, 1.0])
CONVEX = np.array([0.6, 0.3, 0.1, 0.0])


def convex(sensitivities):
    """Layers of the same damage, heard differently."""
    names = [f"layer{i}" for i in range(len(sensitivities))]
    residual = np.array([CONVEX] * len(names))
    return Curves(names, DENSITIES, residual, residual, residual, np.array(sensitivities))


def noise(layer, count):
    """On the hull, its first piece going on below the grid."""
    hull = lower_hull(count_curve(DENSITIES, CONVEX / (1 - CONVEX), layer))
    for (x0, y0), (x1, y1) in itertools.pairwise(hull):
        if count <= x1:
            return y0 + (y1 - y0) * Fraction(count - x0, x1 - x0)
    return hull[-1][1]


@settings(max_examples=60)
@given(networks, st.floats(0.01, 1), st.floats(0, 1), st.integers(0, 1000))
def test_no_layer_is_below_the_floor(layers, density, floor, seed):
    total = sum(layer.size for layer in layers)
    keep = max(len(layers), round(density * total))
    problem = make_problem(layers, keep, random_weights(layers, seed), random_curves(layers, seed))
    counts = sensitivity(problem, floor=floor)
    assert sum(counts) == keep
    for count, least, layer in zip(counts, lamp(problem), layers, strict=True):
        assert max(1, floor * least) <= count <= layer.size


@given(st.lists(st.integers(0, 9), min_size=2, max_size=3), st.data())
def test_nothing_above_the_floor_heals_more(heard, data):
    layers = make_layers([(1, 4 * n) for n in range(1, len(heard) + 1)])
    keep = data.draw(st.integers(len(layers), sum(layer.size for layer in layers)))
    problem = make_problem(layers, keep, random_weights(layers), convex(heard))
    least = [max(1, math.ceil(Fraction("0.3") * count)) for count in lamp(problem)]

    def total(counts):
        each = zip(heard, layers, counts, strict=True)
        return sum(s * noise(layer, count) for s, layer, count in each)

    every = itertools.product(*(range(a, x.size + 1) for a, x in zip(least, layers, strict=True)))
    best = min(total(other) for other in every if sum(other) == keep)
    counts = sensitivity(problem)
    assert all(count >= a for count, a in zip(counts, least, strict=True))
    assert float(total(counts)) == pytest.approx(float(best), abs=1e-12)


def test_what_is_heard_more_keeps_more():
    layers = make_layers([(8, 8)] * 2)
    for heard, order in (((1.0, 3.0), -1), ((3.0, 1.0), 1)):
        first, second = sensitivity(make_problem(layers, 50, random_weights(layers), convex(heard)))
        assert order * (first - second) > 0


def test_where_all_are_heard_alike_it_is_rule_rr_of_the_noise():
    layers = make_layers([(6, 4), (5, 7), (9, 9)])
    curves = random_curves(layers)
    left = np.minimum(curves.residual, 0.99)
    noisy = dataclasses.replace(curves, residual=left / (1 - left))
    expected = rr(make_problem(layers, 40, diagnosis=noisy))
    for heard in (2.0, 0.0):  # 0: a network whose output hears nothing
        equal = dataclasses.replace(curves, sensitivities=np.full(3, heard))
        assert sensitivity(make_problem(layers, 40, diagnosis=equal), floor=0) == expected


def test_what_is_left_of_a_damage_has_to_be_a_number():
    layers = make_layers([(2, 2), (3, 3)])
    curves = random_curves(layers)
    curves.residual[1, 2] = np.nan
    with pytest.raises(SparsemendError, match=r"residual of layer 'layer1' .* is no number"):
        sensitivity(make_problem(layers, 4, random_weights(layers), curves))


def test_a_layer_that_is_not_heard_stays_at_the_floor():
    layers = make_layers([(10, 10)] * 2)
    problem = make_problem(layers, 60, random_weights(layers), convex((0.0, 1.0)))
    assert sensitivity(problem)[0] == math.ceil(Fraction("0.3") * lamp(problem)[0])
    assert sensitivity(problem, floor=0) == (1, 59)


def test_sensitivities_are_taken_by_name():
    layers = make_layers([(6, 4), (5, 7), (9, 9)])
    one = random_curves(layers)
    keys = ("layers", "raw", "residual", "rr", "sensitivities")
    other = dataclasses.replace(one, **{key: getattr(one, key)[::-1] for key in keys})
    weights = random_weights(layers)
    found = [sensitivity(make_problem(layers, 40, weights, curves)) for curves in (one, other)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("heard", "message"),
    [
        (
            None,
            r"a diagnosis with sensitivities: .*sm\.diagnose\(model, calibration, batches=",
        ),
        (np.array([1.0, np.nan]), "sensitivities of the diagnosis do not fit"),
        (np.ones(3), "2 finite numbers, one per layer"),
    ],
)
def test_sensitivities_that_are_none(heard, message):
    layers = make_layers([(2, 2), (3, 3)])
    curves = dataclasses.replace(random_curves(layers), sensitivities=heard)
    with pytest.raises(SparsemendError, match=message):
        sensitivity(make_problem(layers, 4, random_weights(layers), curves))


@pytest.mark.parametrize("floor", [-0.1, 1.1, math.nan])
def test_floors_out_of_range(floor):
    layers = make_layers([(2, 2)])
    problem = make_problem(layers, 2, random_weights(layers), random_curves(layers))
    with pytest.raises(SparsemendError, match="floor of rule 'sensitivity' is out of range"):
        sensitivity(problem, floor=floor)
