"""What is finite, and that an error names where it stopped being so."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsemend.errors import SparsemendError
from sparsemend.finite import (
    NotFiniteError,
    check_finite,
    check_network,
    check_outputs,
    is_finite,
    traced,
)

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@given(
    st.lists(st.sampled_from((0.0, -0.0, 1.0, -1e30, 1e38, -1e38)), max_size=9),
    st.lists(st.sampled_from((math.nan, math.inf, -math.inf)), max_size=3),
    st.permutations(range(12)),
)
def test_is_finite_is_what_pytorch_says(good, bad, order):
    values = [*good, *bad]
    x = torch.tensor([values[i] for i in order if i < len(values)])
    assert is_finite(x) is bool(x.isfinite().all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_numbers_are_finite_although_their_sum_is_not(dtype):
    x = torch.full((5, 3), torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(x)
    assert not is_finite(x * 2)


def test_whole_numbers_are_finite():
    assert is_finite(torch.tensor([1, 2]))
    assert is_finite(torch.ones(2, dtype=torch.bool))


def test_check_finite_counts():
    check_finite("the gains", torch.ones(3))
    with pytest.raises(NotFiniteError) as caught:
        check_finite("the gains", torch.ones(3), torch.tensor([1.0, math.nan]), fix="do that")
    assert str(caught.value) == ("the gains are not finite: 1 of 5 is NaN or infinite; do that")
    assert isinstance(caught.value, SparsemendError)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.Flatten(),
        nn.Linear(48, 4),
    ).eval()


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("0.weight", math.nan, "layer '0' has NaN or infinite weights: 1 of 54 is"),
        ("5.bias", math.inf, "layer '5' has NaN or infinite biases: 1 of 4 is"),
        ("1.weight", -math.inf, "layer '1' has NaN or infinite weights"),
        ("1.running_mean", math.nan, "layer '1' has NaN or infinite running means"),
        ("1.running_var", math.inf, "layer '1' has NaN or infinite running variances"),
        ("3.running_var", -1.0, "layer '3' has negative running variances: got -1.0"),
    ],
)
def test_networks_with_bad_numbers(path, value, text):
    model = network()
    check_network(model)
    with torch.no_grad():
        model.state_dict()[path].view(-1)[0] = value
    with pytest.raises(NotFiniteError, match=text):
        check_network(model)


def test_buffers_of_other_modules_may_hold_infinity():
    model = network()
    model.register_buffer("causal_mask", torch.full((3, 3), -math.inf))
    check_network(model)
    check_network(nn.Sequential(nn.LazyLinear(3)))


class Half(nn.Module):
    """Overflows somewhere on the way, outside of modules or in one."""

    def __init__(self, outside):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))
        self._outside = outside
        if not outside:
            nn.init.constant_(self.second.bias, 3e38)
            nn.init.constant_(self.third.bias, 3e38)

    def forward(self, x):
        x = self.second(self.first(x))
        return self.third(x / 0 if self._outside else x + x)


@pytest.mark.parametrize(
    ("outside", "x", "text"),
    [
        (True, 1.0, "the inputs of layer 'third' .Linear. are not finite: 8 of 8 are"),
        (False, 1.0, "the inputs of layer 'third' .Linear. are not finite: 8 of 8 are"),
        (False, math.nan, "the inputs of the network are not finite: 8 of 8 are"),
    ],
)
def test_an_error_names_where_it_began(outside, x, text):
    model, x = Half(outside), torch.full((2, 4), x)
    with pytest.raises(NotFiniteError, match=text), traced(model, lambda: model(x)):
        check_finite("something", model(x))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_layer_that_overflows_is_named():
    model, x = network(), torch.ones(2, 2, 4, 4)
    nn.init.constant_(model[0].weight, 3e38)
    with pytest.raises(NotFiniteError, match=r"the outputs of layer '0' \(Conv2d\) are not"):
        check_outputs(model, model(x), lambda: model(x))


def test_what_is_finite_is_not_traced():
    def never():
        raise AssertionError

    model = network()
    with pytest.raises(NotFiniteError, match=r"moments are not finite"), traced(model, lambda: 0):
        check_finite("moments", torch.tensor(math.nan))
    # Classes that a network rules out.
    check_outputs(model, torch.tensor([[0.0, -math.inf]]), never)
