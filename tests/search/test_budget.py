import math
from types import SimpleNamespace

import pytest

from sparsemend import SparsemendError
from sparsemend.recipe import Budget, parse_budget
from sparsemend.search.meter import Meter


@pytest.mark.parametrize(
    ("value", "repairs", "seconds"),
    [
        (None, 40, math.inf),
        (30, 30, math.inf),
        (0.5, 0.5, math.inf),
        ("12", 12, math.inf),
        (" 7.5 ", 7.5, math.inf),
        ("90s", math.inf, 90),
        ("20min", math.inf, 1200),
        ("20 min", math.inf, 1200),
        ("1.5m", math.inf, 90),
        ("2h", math.inf, 7200),
        (12345678, 12345678, math.inf),
    ],
)
def test_repairs_or_a_time(value, repairs, seconds):
    assert parse_budget(value) == Budget(repairs, seconds)
    assert parse_budget(str(parse_budget(value))) == Budget(repairs, seconds)


BAD = [0, -3, "0", "0min", "-2h", "", "min", "20 minutes", "1e3", "1,5h", "5 5", "2d"]


@pytest.mark.parametrize("value", [*BAD, math.nan, math.inf, True, [3]])
def test_anything_else_is_refused(value):
    with pytest.raises(SparsemendError) as caught:
        parse_budget(value)
    assert str(caught.value) == (
        f"the search budget is not understood: got {value!r}; allowed: "
        "a positive number of repairs, such as 40, or a time, such as '20min'"
    )


def test_the_default_is_affordable():
    assert Budget().repairs <= 40


def test_repairs_are_counted_in_shares():
    meter = Meter(Budget(3))
    assert meter.total == 3
    # 0.1 has no exact binary form: thirty of them are a little more than 3.
    for done in range(30):
        assert meter.affords(0.1)
        assert meter.done == meter.spent == pytest.approx(done / 10)
        meter.charge(0.1)
    assert not meter.affords(0.1)
    assert meter.affords(0)


def test_a_time_runs(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("sparsemend.search.meter.time", clock)
    meter = Meter(Budget(math.inf, 60))
    assert (meter.total, meter.done) == (60, 0)
    meter.charge(1000)
    clock.now += 59.9
    assert meter.affords(1000)
    assert meter.done == meter.seconds == pytest.approx(59.9)
    assert meter.spent == 1000
    clock.now += 0.1
    assert not meter.affords(0)


def test_both_limits_hold(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("sparsemend.search.meter.time", clock)
    meter = Meter(Budget(2, 60))
    assert meter.affords(2)
    assert not meter.affords(2.1)
    clock.now = 60
    assert not meter.affords(1)


def test_what_is_kept_for_the_end_is_left_over():
    meter = Meter(Budget(10), kept=4)
    meter.charge(5)
    assert meter.affords(1)
    assert not meter.affords(1.5)
    meter.release()
    assert meter.affords(5)


def test_of_a_time_as_much_is_kept_as_repairs_have_taken(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("sparsemend.search.meter.time", clock)
    meter = Meter(Budget(math.inf, 100), kept=4)
    assert meter.affords(1)
    meter.charge(2)
    for clock.now, affords in ((20, True), (33, True), (34, False)):  # 4 repairs are twice as long
        assert meter.affords(1) == affords
    meter.release()
    assert meter.affords(1)


def test_time_is_kept_for_the_end_as_well(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("sparsemend.search.meter.time", clock)
    meter = Meter(Budget(math.inf, 100), kept=1, kept_seconds=50)
    meter.charge(2)
    for clock.now, affords in ((30, True), (34, False)):  # half as long again, and the 50
        assert meter.affords(1) == affords
    meter.release()
    assert meter.affords(2, seconds=31)
    assert not meter.affords(2, seconds=67)
