import torch
from hypothesis import given, settings
from torch import nn

from sparsemend.layers import kind_of, mean_patch, unfold

from .modules import assert_agrees_with_defaults, assert_unfolds, linears


@settings(max_examples=30)
@given(linears())
def test_unfolds(case):
    assert_unfolds(*case)


@settings(max_examples=30)
@given(linears())
def test_agrees_with_defaults(case):
    assert_agrees_with_defaults(*case)


@settings(max_examples=30)
@given(linears())
def test_count_of_positions(case):
    module, x = case
    columns = torch.cat(list(unfold(module, x)), dim=1)
    assert kind_of(module).count_positions(module, x) == columns.shape[1]


def test_means_are_over_all_but_the_first_and_last_dimension():
    x = torch.randn(4, 2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(mean_patch(nn.Linear(3, 2), x)[0], x.mean(dim=(1, 2)))
