import numpy as np
import pytest

from sparsemend.search.mixtures import describe, first_mixtures, halfway, mix


def test_the_first_are_of_the_best_three():
    third = pytest.approx(1 / 3)
    assert first_mixtures(["a", "b", "c", "d"]) == [
        {"a": third, "b": third, "c": third},
        {"a": 0.5, "b": 0.5},
        {"a": 0.5, "c": 0.5},
        {"b": 0.5, "c": 0.5},
    ]
    assert first_mixtures(["a", "b"]) == [{"a": 0.5, "b": 0.5}]
    assert first_mixtures(["a"]) == first_mixtures([]) == []


def test_shares_add_up_to_one():
    for one in first_mixtures(["a", "b", "c"]):
        for other in first_mixtures(["d", "c", "a"]):
            assert sum(halfway(one, other).values()) == pytest.approx(1)
    assert halfway({"a": 0.5, "b": 0.5}, {"a": 1.0}) == {"a": 0.75, "b": 0.25}


def test_densities_are_geometric_means():
    densities = {"a": np.array([0.1, 0.4]), "b": np.array([0.4, 0.1])}
    points = {rule: np.log(d) for rule, d in densities.items()}
    assert np.exp(mix({"a": 0.5, "b": 0.5}, points)) == pytest.approx([0.2, 0.2])
    assert mix({"a": 1.0}, points) == pytest.approx(points["a"])


def test_names():
    assert describe({"erk": 1.0}) == "erk"
    assert describe({"erk": 0.25, "global": 0.75}) == "0.25 erk + 0.75 global"
