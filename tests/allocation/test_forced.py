from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sparsemend import SparsemendError
from sparsemend.allocation import (
    Allocation,
    ForcedRule,
    check_rule,
    force_layers,
    needs_diagnosis,
    parse_forced,
)


@st.composite
def allocations(draw):
    """Two allocations of the same layers and budget, and some layers to force."""
    sizes = draw(st.lists(st.integers(1, 400), min_size=2, max_size=8))
    counts = [draw(st.integers(1, size)) for size in sizes]
    other = [draw(st.integers(1, size)) for size in sizes]
    names = [f"l{i}" for i in range(len(sizes))]
    by_name = dict(zip(names, sizes, strict=True))
    forced = draw(st.sets(st.sampled_from(names), min_size=1))
    base = Allocation(dict(zip(names, counts, strict=True)), by_name, "erk")
    return base, Allocation(dict(zip(names, other, strict=True)), by_name, "lamp"), forced


@given(allocations())
def test_forced_layers_are_the_source_and_the_rest_keeps_its_proportions(given_):
    base, source, forced = given_
    rest = [name for name in base if name not in forced]
    left = base.kept - sum(source[name] for name in forced)
    assume(len(rest) <= left <= sum(base.sizes[name] for name in rest))
    found = force_layers(base, source, forced, "x")
    assert found.kept == base.kept
    assert list(found) == list(base)
    assert found.rule == "x"
    assert all(found[name] == source[name] for name in forced)
    assert all(1 <= found[name] <= base.sizes[name] for name in rest)
    # One factor for all that are neither full nor down to one weight, up to rounding.
    between = [n for n in rest if 1 < found[n] < base.sizes[n]]
    lowest = max((Fraction(found[n] - 1, base[n]) for n in between), default=Fraction(0))
    highest = min((Fraction(found[n] + 1, base[n]) for n in between), default=lowest)
    assert lowest <= highest
    for name in rest:  # a full layer would have got more, one at its least weight less
        if between and found[name] == base.sizes[name]:
            assert base[name] * highest >= base.sizes[name] - 1
        if between and found[name] == 1 < base.sizes[name]:
            assert base[name] * lowest <= 2


@given(allocations())
def test_forcing_a_rule_to_itself_changes_nothing(given_):
    base, _, forced = given_
    assume(len(forced) < len(base))
    assert dict(force_layers(base, base, forced, "x")) == dict(base)


def test_what_the_forced_layers_give_up_goes_to_the_others_in_proportion():
    sizes = {"p": 100, "a": 1000, "b": 1000, "full": 20}
    base = Allocation({"p": 100, "a": 100, "b": 50, "full": 20}, sizes, "erk")
    source = Allocation({"p": 10, "a": 1, "b": 1, "full": 1}, sizes, "lamp")
    found = force_layers(base, source, {"p"}, "erk[p=lamp]")
    assert dict(found) == {"p": 10, "a": 160, "b": 80, "full": 20}


def test_what_cannot_be_made_up_for():
    sizes = {"small": 10, "large": 1000}
    base = Allocation({"small": 10, "large": 190}, sizes, "erk")
    greedy = Allocation({"small": 1, "large": 200}, sizes, "lamp")
    with pytest.raises(SparsemendError) as caught:
        force_layers(base, greedy, {"large"}, "x")
    assert "with 1 layers forced, the other 1 cannot keep what is left: got 0" in str(caught.value)
    modest = Allocation({"small": 1, "large": 100}, sizes, "lamp")
    with pytest.raises(SparsemendError, match="got 100; allowed: 1 to 10 weights"):
        force_layers(base, modest, {"large"}, "x")
    with pytest.raises(SparsemendError, match="the other 0 cannot keep"):
        force_layers(base, greedy, {"small", "large"}, "x")


@pytest.mark.parametrize(
    "parts",
    [
        ("erk", "projection", "lamp"),
        ("uniform+", "layer[12].*.conv?", "rr-density"),
        ("rr", "a=b", "global"),
    ],
)
def test_formulas_are_read_back(parts):
    rule = ForcedRule(*parts)
    assert parse_forced(str(rule)) == rule


@pytest.mark.parametrize("text", ["erk", "uniform+", "erk[]", "erk[fc]", "[fc=lamp]", "erk[=lamp]"])
def test_plain_rules_are_not_forced(text):
    assert parse_forced(text) is None


def test_unknown_parts_are_refused():
    check_rule("erk[fc=lamp]")
    for rule in ("erk[fc=lam]", "er[fc=lamp]", "erk[fc]"):
        with pytest.raises(SparsemendError, match="unknown allocation rule"):
            check_rule(rule)


def test_a_diagnosis_is_needed_where_a_part_needs_one():
    assert needs_diagnosis("rr")
    assert needs_diagnosis("erk[fc=rr]")
    assert needs_diagnosis("rr-density[fc=erk]")
    assert not needs_diagnosis("erk[fc=lamp]")
