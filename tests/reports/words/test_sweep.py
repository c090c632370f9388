import dataclasses

from tests.reports.marks import plain
from tests.reports.samples import (
    MIDPOINTS,
    make_records,
    make_transition,
    make_transitions,
)

from sparsemend.reports.words import of_sweep
from sparsemend.sweeps import Lead


def sweep(records=None, transitions=None):
    return plain(
        of_sweep(
            make_records() if records is None else records,
            make_transitions() if transitions is None else transitions,
        )
    )


def test_who_falls_last_and_first():
    words = sweep().splitlines()
    assert words[0] == (
        "net, repair batchnorm: half of the accuracy is kept up to 90 % sparsity with rule "
        "global, only up to 86 % with erk."
    )
    assert words[1] == "The fall from 80 % to 20 % recovery takes 3.0 points of sparsity."


def test_the_headline_of_several_settings():
    records = make_records(networks=("a", "b"))
    transitions = [
        make_transition(rule, m + shift, network=network)
        for network, shift in (("a", 0), ("b", 0.03))
        for rule, m in MIDPOINTS.items()
    ]
    assert sweep(records, transitions).splitlines()[0] == (
        "Half of the accuracy survives up to 90.0 % sparsity on a (global, batchnorm) and up to "
        "93.0 % sparsity on b (global, batchnorm)."
    )


def test_the_headline_names_what_keeps_half_to_the_end_of_the_sweep():
    records = [
        dataclasses.replace(record, cell=dataclasses.replace(record.cell, repair=repair))
        for repair, midpoint in (("mean", 0.86), ("reconstruct", 0.99))
        for record in make_records(midpoints={"erk": midpoint})
    ]
    transition = dataclasses.replace(make_transition("erk", 0.86), repair="mean")
    headline = sweep(records, [transition]).splitlines()[0]
    assert headline == (
        "Half of the accuracy survives beyond 96 % sparsity on net (erk, reconstruct)."
    )


def test_what_is_not_crossed_is_not_invented():
    records = make_records(midpoints={"global": 0.99, "erk": 0.86})
    words = sweep(records, [make_transition("global", None), make_transition("erk", 0.86)])
    assert (
        "the midpoint is not crossed in this sweep (from 50 % to 96 % sparsity) by global" in words
    )
    assert "the first to fall is 86 % with erk" in words
    words = sweep(make_records(midpoints={"global": 0.3}), [make_transition("global", None)])
    assert "every rule has lost half of its accuracy before this sweep starts" in words
    assert "takes" not in words
    words = sweep(make_records(midpoints={"global": 0.9}), [])
    assert "no transition was determined" in words


def test_a_rule_that_was_lost_before_the_sweep():
    records = make_records(midpoints={"global": 0.9, "erk": 0.3})
    words = sweep(records, [make_transition("global", 0.9), make_transition("erk", None)])
    assert "kept up to 90 % sparsity with rule global, not at all in this sweep with erk" in words


def test_where_rr_is_ahead():
    key = ("net", "magnitude", "batchnorm", "accuracy")
    records = make_records()

    def words(*leads):
        return plain(of_sweep(records, (), leads))

    assert "rr is nowhere ahead" in words(Lead(*key, "global", 0.5, 0.96))
    assert (
        "rr is ahead of all other rules from 70 % to 80 % and from 90 % to 92 % sparsity."
        in words(
            Lead(*key, "rr", 0.7, 0.8), Lead(*key, "global", 0.8, 0.9), Lead(*key, "rr", 0.9, 0.92)
        )
    )
    assert "ahead" not in words()


def test_seeds():
    words = sweep()
    assert (
        "Up to 3 calibration seeds; the midpoints' standard deviation is at most 0.2 points."
        in words
    )
    assert "chance" not in words
    alone = make_records(seeds=(0,), repairs=("reconstruct",))
    assert "With one calibration seed, nothing says how far chance moves" in sweep(alone)
    both = sweep((*make_records(), *alone))
    assert "Up to 3 calibration seeds" in both
    assert "With one calibration seed (net, repair reconstruct), nothing says" in both


def test_seeds_that_do_not_cross():
    whole = make_transition("global", 0.9)
    partly = dataclasses.replace(whole, midpoint=dataclasses.replace(whole.midpoint, count=2))
    assert "Not every seed" not in sweep(transitions=[whole])
    assert (
        "Not every seed crosses half within this sweep for global (net, repair batchnorm); the "
        "midpoints there are of the seeds that do."
    ) in sweep(transitions=[partly])


def test_with_and_without_labels():
    assert (
        "Without labels, from agreement alone, the midpoint comes within 0.5 points of sparsity "
        "of the labelled one (on average 0.5)."
    ) in sweep()
    assert "agreement with the dense network is kept" in sweep(make_records(labels=False))
    both = sweep((*make_records(), *make_records(networks=("other",), labels=False)))
    assert "net, repair batchnorm: half of the accuracy is kept" in both
    assert "other, repair batchnorm: no transition was determined" in both


def test_few_sparsities_name_the_best():
    records = make_records(sparsities=(0.85, 0.9), repairs=("batchnorm",))
    assert (
        sweep(records)
        .splitlines()[0]
        .startswith("net at 90 % sparsity: best is rule global with repair batchnorm, ")
    )


def test_of_targets_the_best_is_named():
    records = tuple(
        dataclasses.replace(
            r,
            cell=dataclasses.replace(
                r.cell, sparsity=None, target=f"flops {1 - r.cell.sparsity:g}"
            ),
        )
        for r in make_records(sparsities=(0.85, 0.9))
    )
    first, second = sweep(records).splitlines()[:2]
    best = "best is rule global with repair batchnorm, "
    assert first.startswith(f"net, at most 0.15 of the multiplications: {best}")
    assert second.startswith(f"net, at most 0.1 of the multiplications: {best}")
