from tests.reports.samples import FORCED, SPARSITIES, make_ablation, make_records

from sparsemend.reports.ablations import find_ablations, gains


def ablation():
    (found,) = find_ablations(make_ablation())
    return found


def test_found_by_the_rule_s_name():
    found = ablation()
    assert (found.layers, found.base, found.forced, found.other) == (
        *("projection", "erk", FORCED, "lamp"),
    )
    assert len(found.records) == 3 * len(SPARSITIES)
    assert find_ablations(make_records()) == []


def test_what_forcing_gained_in_words():
    (words,) = gains(ablation())
    assert f"at {len(SPARSITIES) - 1} of {len(SPARSITIES)} sparsities" in words
    assert "between −1.0 points (at 50\u00a0% sparsity) and +2.0 points" in words
