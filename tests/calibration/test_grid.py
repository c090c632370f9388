from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.calibration import DEFAULT_DENSITIES, check_densities, kept_count
from sparsemend.errors import SparsemendError
from sparsemend.layers import Layer
from sparsemend.patterns import parse_pattern


def layer(size, pattern="free"):
    return Layer("layer", "Linear", (1, size), 1, 1, size, 0, pattern=parse_pattern(pattern))


def test_default_grid():
    assert len(DEFAULT_DENSITIES) == 24
    assert (DEFAULT_DENSITIES[0], DEFAULT_DENSITIES[-1]) == (0.01, 1.0)
    assert list(DEFAULT_DENSITIES) == sorted(set(DEFAULT_DENSITIES))
    assert check_densities(None) == DEFAULT_DENSITIES


def test_a_grid_is_sorted_and_has_no_doubles():
    assert check_densities([0.5, 1, 0.1, 0.5]) == (0.1, 0.5, 1.0)


@pytest.mark.parametrize("densities", [[], [0.0, 0.5], [1.1], [-0.1], [float("nan")]])
def test_other_grids_are_refused(densities):
    with pytest.raises(SparsemendError) as caught:
        check_densities(densities)
    assert str(caught.value) == (
        f"densities are not a grid: got {densities!r}; allowed: fractions in (0, 1], at least one"
    )


@given(st.floats(1e-6, 1), st.integers(1, 10**9))
def test_kept_count_is_the_nearest_integer(density, size):
    kept = kept_count(density, layer(size))
    assert 1 <= kept <= size
    exact = Fraction(density) * size
    assert abs(kept - exact) <= Fraction(1, 2) or (kept, exact < 1) == (1, True)


@given(st.floats(1e-6, 1), st.floats(1e-6, 1), st.integers(1, 1000))
def test_kept_count_grows_with_the_density(one, other, size):
    low, high = sorted((one, other))
    assert kept_count(low, layer(size)) <= kept_count(high, layer(size))


def test_halves_go_up_and_everything_is_kept_at_one():
    cases = [(0.5, 5), (0.25, 2), (1, 7)]
    assert [kept_count(density, layer(size)) for density, size in cases] == [3, 1, 7]


def test_patterns_keep_the_nearest_count_that_they_allow():
    assert [kept_count(d, layer(8, "block:1x4")) for d in (0.01, 0.5, 0.8, 1)] == [4, 4, 8, 8]
    assert check_densities(None, parse_pattern("1:4")) == (0.25,)
    with pytest.raises(SparsemendError, match="pattern '1:4' has one density: got"):
        check_densities([0.25, 0.5], parse_pattern("1:4"))
