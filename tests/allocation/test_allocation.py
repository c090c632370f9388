import copy
import json
import pickle

import numpy as np
import pytest

from sparsemend.allocation import Allocation
from sparsemend.errors import SparsemendError

SIZES = {"conv": 100, "fc": 400}


@pytest.fixture
def allocation():
    return Allocation({"conv": 30, "fc": 20}, SIZES, rule="uniform")


def test_is_a_mapping_from_name_to_kept_count(allocation):
    assert dict(allocation) == {"conv": 30, "fc": 20}
    assert list(allocation) == ["conv", "fc"]
    assert len(allocation) == 2
    assert allocation == {"conv": 30, "fc": 20}


def test_properties(allocation):
    assert dict(allocation.densities) == {"conv": 0.3, "fc": 0.05}
    assert (allocation.total, allocation.kept, allocation.sparsity) == (500, 50, 0.9)
    assert allocation.rule == "uniform"
    assert dict(allocation.sizes) == SIZES


def test_is_immutable(allocation):
    with pytest.raises(TypeError):
        allocation["conv"] = 1
    with pytest.raises(TypeError):
        allocation.sizes["conv"] = 1
    with pytest.raises(AttributeError):
        allocation.rule = "erk"


def test_numpy_counts_become_integers():
    allocation = Allocation({"a": np.int64(3)}, {"a": np.int64(4)}, rule="erk")
    assert type(allocation["a"]) is int
    assert type(allocation.total) is int


def test_round_trips(allocation):
    for other in (
        Allocation.from_dict(json.loads(json.dumps(allocation.to_dict()))),
        copy.deepcopy(allocation),
        pickle.loads(pickle.dumps(allocation)),
    ):
        assert other == allocation
        assert other.to_dict() == allocation.to_dict()


def test_reads_a_file(allocation, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(allocation.to_dict()))
    assert Allocation.load(tmp_path / "a.json") == allocation
    with pytest.raises(SparsemendError, match="the allocation is no file"):
        Allocation.load(tmp_path)
    (tmp_path / "b.json").write_text("[")
    with pytest.raises(SparsemendError, match=r"the allocation file cannot be read \(Exp"):
        Allocation.load(tmp_path / "b.json")


def test_prints_as_a_table(allocation):
    assert str(allocation).splitlines() == [
        "rule uniform, sparsity 0.9",
        "layer  size  kept  density",
        "conv    100    30   0.3000",
        "fc      400    20   0.0500",
        "total   500    50   0.1000",
    ]
    assert repr(allocation) == (
        "Allocation(rule='uniform', layers=2, kept=50, total=500, sparsity=0.9)"
    )


@pytest.mark.parametrize("kept", [-1, 101])
def test_refuses_a_count_outside_its_layer(kept):
    with pytest.raises(SparsemendError) as caught:
        Allocation({"conv": kept, "fc": 20}, SIZES, rule="uniform")
    assert str(caught.value) == (
        f"kept count of layer 'conv' is out of range: got {kept}; "
        "allowed: an integer from 0 to the layer's size 100"
    )


@pytest.mark.parametrize("kept", [1.0, "3", True, None])
def test_refuses_what_is_no_integer(kept):
    with pytest.raises(SparsemendError, match=r"kept count of layer 'conv' is not a count: got"):
        Allocation({"conv": kept, "fc": 20}, SIZES, rule="uniform")


def test_refuses_other_names():
    with pytest.raises(SparsemendError, match=r"name different layers: got \['conv', 'stem'\]"):
        Allocation({"stem": 30, "fc": 20}, SIZES, rule="uniform")
    with pytest.raises(SparsemendError, match="at least one layer"):
        Allocation({}, {}, rule="uniform")


@pytest.mark.parametrize(
    "data", [{}, {"rule": "erk", "kept": {}}, {"rule": "erk", "kept": 1, "sizes": {"a": 9}}]
)
def test_refuses_a_dictionary_of_something_else(data):
    with pytest.raises(SparsemendError, match="this is no allocation: got"):
        Allocation.from_dict(data)
