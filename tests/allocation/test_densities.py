"""Densities that a user gives."""

import pytest
from torch import nn

import sparsemend as sm
from sparsemend.allocation import Densities


def layers():
    return sm.discover(
        nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5), nn.Linear(5, 5))
    )


def counts(given, sparsity=None):
    return dict(Densities.read(given).allocate(layers(), sparsity))


def test_layers_that_are_not_named_stay_dense():
    assert counts({"0": 0.25}) == {"0": 50, "2": 100, "3": 25}


def test_a_name_counts_before_a_pattern_and_the_last_pattern_before_others():
    assert counts({"2": 0.5, "*": 0.1, "[23]": 0.2}) == {"0": 20, "2": 50, "3": 5}
    assert counts({"*": 0.1, "last": 0}) == {"0": 20, "2": 10, "3": 0}


def test_halves_go_up_and_decimals_are_exact():
    assert counts({"3": 0.1, "0": 0.29}) == {"0": 58, "2": 100, "3": 3}


def test_a_sparsity_has_to_agree():
    given = {"*": 0.1}
    assert counts(given, 0.9) == counts(given)
    with pytest.raises(sm.SparsemendError, match=r"another sparsity: got '0.898.*allowed: 0.8, as"):
        counts(given, 0.8)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "name no layer"),
        ({3: 0.1}, "no name: got 3"),
        ({"0": 1.5}, "density of '0' is out of range: got 1.5"),
        ({"0": True}, "out of range: got True"),
        ({"0": float("nan")}, "out of range: got nan"),
        ({"0": "0.1"}, "out of range: got '0.1'"),
        ({"zero": 0.1}, "no layer of the network is meant by this pattern: got 'zero'"),
        ({"*": 0}, "leave no weight"),
    ],
)
def test_what_is_refused(given, text):
    with pytest.raises(sm.SparsemendError, match=text):
        counts(given)
