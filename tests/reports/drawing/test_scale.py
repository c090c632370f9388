import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sparsemend.reports.drawing.scale import (
    Categories,
    Columns,
    Linear,
    Logarithmic,
    Remaining,
    Root,
    end_above,
    fraction_scale,
    nice_end,
    nice_step,
    nice_ticks,
    sparsity_scale,
)

SCALES = [
    Linear(-2.0, 7.5),
    Linear(0, 1, as_percent=True),
    Linear(0, 11_678_912),
    Linear(0, 4e9),
    Logarithmic(0.01, 1),
    Remaining(0.4, 0.98),
    Root(4.2),
    Categories(("a", "b", "c")),
    Columns((0.01, 0.1, 0.5, 1.0)),
]
ENDS = {Categories: (-0.5, 2.5), Columns: (-0.5, 3.5), Root: (0, 4.2)}


@pytest.mark.parametrize("scale", SCALES, ids=lambda s: type(s).__name__)
@given(position=st.floats(0, 1))
def test_positions_invert_to_values(scale, position):
    assert scale.position(scale.value(position)) == pytest.approx(position, abs=1e-9)


@pytest.mark.parametrize("scale", SCALES, ids=lambda s: type(s).__name__)
def test_ends_and_order(scale):
    low, high = ENDS.get(type(scale)) or (scale.low, scale.high)
    assert scale.position(low) == pytest.approx(0)
    assert scale.position(high) == pytest.approx(1)
    positions = [scale.position(low + k / 20 * (high - low)) for k in range(21)]
    assert positions == sorted(positions)


@pytest.mark.parametrize("scale", SCALES, ids=lambda s: type(s).__name__)
def test_ticks_lie_on_the_axis_in_order_with_labels(scale):
    ticks = scale.ticks()
    places = [scale.position(tick.value) for tick in ticks]
    assert len(ticks) >= 2
    assert places == sorted(places)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    assert all(tick.label for tick in ticks)
    assert len({tick.label for tick in ticks}) == len(ticks)


@given(st.floats(1e-6, 1e6), st.integers(1, 12))
def test_steps_are_round_and_about_as_many_as_asked(span, count):
    step = nice_step(span, count)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-6
    assert count / 2.6 <= span / step <= count * 1.01


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_are_multiples_of_one_step_within_the_ends(low, span):
    high = low + span
    assume(high > low)
    ticks = nice_ticks(low, high, 5)
    step = nice_step(high - low, 5)
    assert all(low - 1e-6 * span <= t <= high + 1e-6 * span for t in ticks)
    assert all(abs(t / step - round(t / step)) < 1e-6 for t in ticks)
    assert low - ticks[0] <= 0 or ticks[0] - low < step
    assert high - ticks[-1] < step * (1 + 1e-6)


def test_ticks_have_no_rounding_noise():
    assert nice_ticks(0, 0.6, 6) == (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    assert nice_ticks(0.5, 0.5) == (0.5,)


@given(st.floats(1e-6, 1e6))
def test_ends_are_round_and_not_far_above(value):
    end = nice_end(value)
    assert value <= end * (1 + 1e-9)
    assert end <= value * 1.5 or end - value <= nice_step(value, 5)


def test_labels():
    assert [t.label for t in Logarithmic(0.01, 1).ticks()] == [
        f"{p}\u00a0%" for p in (1, 2, 5, 10, 20, 50, 100)
    ]
    assert [t.label for t in Logarithmic(0.01, 1, sparse=True).ticks()] == [
        f"{p}\u00a0%" for p in (1, 10, 100)
    ]
    assert [t.label for t in Linear(0, 1, as_percent=True).ticks()] == [
        f"{p}\u00a0%" for p in (0, 20, 40, 60, 80, 100)
    ]


def test_long_names_are_shortened_in_the_middle():
    label = Categories(("transformer.encoder.layers.11.self_attention.output.dense",)).ticks()[0]
    assert len(label.label) == 28
    assert label.label.startswith("transform")
    assert label.label.endswith("output.dense")


def test_a_column_is_labelled_with_its_own_value():
    ticks = Columns((0.013, 0.11, 0.3)).ticks()
    assert [(t.value, t.label) for t in ticks] == [(1, "11\u00a0%")]


def test_halving_what_is_left_is_one_step():
    scale = Remaining(0, 0.99)
    halves = [1 - 0.5**k for k in range(6)]
    steps = [scale.position(b) - scale.position(a) for a, b in itertools.pairwise(halves)]
    assert steps == pytest.approx([steps[0]] * 5)


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=20))
def test_sparsities_lie_within_their_axis(values):
    scale = sparsity_scale(values)
    assert all(0 <= scale.position(v) <= 1 for v in values)
    assert 0 <= scale.low < scale.high < 1
    places = [scale.position(t.value) for t in scale.ticks()]
    assert all(b - a > 0.12 for a, b in itertools.pairwise(places))


@given(st.floats(0, 3))
def test_fractions_have_an_axis_that_holds_them(highest):
    scale = fraction_scale(highest)
    assert 0 <= scale.position(highest) <= 1 + 1e-9
    assert scale.high <= max(1.0, 1.5 * highest)


def test_accuracies_end_at_all_of_them():
    assert fraction_scale(0.989).high == 1
    assert fraction_scale(0.69).high == pytest.approx(0.8)


def test_an_axis_ends_above_its_finite_values():
    assert end_above([1.0, math.inf, 3.9, math.nan], 0.1) == nice_end(3.9) == 4.0
    assert end_above([0.0, -1.0], 0.1) == end_above([math.nan], 0.1) == nice_end(0.1)


@pytest.mark.parametrize(
    ("high", "labels"),
    [
        (3000, ["0", "1000", "2000", "3000"]),
        (77_704, ["0", "50 k"]),
        (1_200_000, ["0", "0.5 M", "1 M"]),
        (3e9, ["0", "1 G", "2 G", "3 G"]),
    ],
)
def test_large_numbers_are_labelled_in_units(high, labels):
    found = [tick.label.replace("\u00a0", " ") for tick in Linear(0, high, count=3).ticks()]
    assert found == labels
