import pytest

from sparsemend.errors import SparsemendError
from sparsemend.layers import Layer
from sparsemend.operators import OPERATORS
from sparsemend.repairs import get_repair, repairs


def test_operators_go_by_their_own_names():
    assert {"none", "mean", "variance", "layerwise", "shrinkage", "affine"} <= set(OPERATORS)
    assert all(OPERATORS[name].name == get_repair(name).name == name for name in OPERATORS)
    assert [name for name, op in OPERATORS.items() if not op.matches_mean] == ["none"]


def test_unknown_operators_are_refused():
    with pytest.raises(SparsemendError) as caught:
        get_repair("varience")
    known = ", ".join(repairs())
    assert str(caught.value) == (
        f"unknown repair: got 'varience'; allowed: {known}; did you mean 'variance'?"
    )


@pytest.mark.parametrize("name", OPERATORS)
def test_only_signal_resuscitation_leaves_layers_out(name):
    convolution = Layer("a", "Conv2d", (4, 3, 3, 3), 1, 4, 27, 0)
    linear = Layer("b", "Linear", (4, 3), 1, 4, 3, 1)
    covers = OPERATORS[name].covers
    got = [covers(convolution, True), covers(convolution, False), covers(linear, False)]
    assert got == ([False, True, False] if name == "shrinkage" else [True] * 3)
