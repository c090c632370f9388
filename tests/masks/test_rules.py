import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.errors import SparsemendError
from sparsemend.masks import MASKS, MaskProblem, MaskRule, get_mask_rule, mask_names
from sparsemend.solvers.ranking import keep_mask

NESTED = [name for name, rule in MASKS.items() if rule.nested]


@dataclass(frozen=True)
class Moments:
    """All that the rules here read of the inputs."""

    column_square: torch.Tensor


def ranks(name, weight, square):
    return MASKS[name].ranks(MaskProblem(weight, Moments(square)))


@st.composite
def layers(draw):
    """Weights [groups, rows, d] with many ties, and E[x²] of their columns."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    weight = torch.randint(-3, 4, shape, generator=generator).float()
    return weight, torch.randint(0, 4, (shape[0], shape[2]), generator=generator).double() ** 2


def every_mask(name, weight, square):
    rank = ranks(name, weight, square)
    assert rank.shape == weight.shape
    return [keep_mask(rank, kept).numpy() for kept in range(weight.numel() + 1)]


@pytest.mark.parametrize("name", NESTED)
@given(layers())
def test_counts_are_exact_and_masks_nested(name, case):
    masks = every_mask(name, *case)
    assert [mask.sum() for mask in masks] == list(range(len(masks)))
    assert all((a <= b).all() for a, b in itertools.pairwise(masks))


@given(layers())
def test_magnitude_keeps_the_largest_of_the_layer(case):
    weight, square = case
    flat = weight.abs().flatten().tolist()
    order = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
    for kept, mask in enumerate(every_mask("magnitude", weight, square)):
        assert set(np.flatnonzero(mask)) == set(order[:kept])


@given(layers())
def test_activation_keeps_as_many_of_every_row_by_score(case):
    weight, square = case
    groups, rows, columns = weight.shape
    score = (weight.abs() * square.sqrt().float().unsqueeze(1)).numpy().reshape(-1, columns)
    for kept, mask in enumerate(every_mask("activation", weight, square)):
        for row, chosen in enumerate(mask.reshape(-1, columns)):
            share = kept // (groups * rows) + (row < kept % (groups * rows))
            order = sorted(range(columns), key=lambda j: (-score[row, j], j))
            assert set(np.flatnonzero(chosen)) == set(order[:share])


def test_columns_without_input_go_first():
    weight = torch.tensor([[[9.0, 1.0, 2.0]]])
    square = torch.tensor([[0.0, 1.0, 1.0]])
    assert every_mask("activation", weight, square)[2].tolist() == [[[False, True, True]]]


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_and_signs_do_not_matter(name, dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 3, 5, generator=generator).to(dtype)
    square = torch.rand(2, 5, generator=generator, dtype=torch.float64)
    before = weight.clone()
    rank = ranks(name, weight, square)
    assert torch.equal(weight, before)
    assert torch.equal(rank, ranks(name, -weight, square))


def test_activation_needs_moments():
    with pytest.raises(SparsemendError) as caught:
        MASKS["activation"].ranks(MaskProblem(torch.ones(1, 2, 2)))
    assert str(caught.value) == (
        "mask 'activation' needs the inputs' second moments; pass "
        "calibration=sparsemend.calibrate(model, batches)"
    )


def test_unknown_masks_are_refused():
    assert all(get_mask_rule(name) is rule for name, rule in MASKS.items())
    with pytest.raises(SparsemendError) as caught:
        get_mask_rule("random")
    known = ", ".join(mask_names())
    assert str(caught.value) == f"unknown mask: got 'random'; allowed: {known}"


def test_a_rule_says_in_one_way_what_it_chooses():
    for ways in ({}, {"score": abs, "choose": abs}):
        with pytest.raises(SparsemendError, match="mask rule 'new' is not defined"):
            MaskRule("new", **ways)


def test_a_rule_that_chooses_another_number_is_refused():
    rule = MaskRule("odd", choose=lambda problem, _: problem.weight > 0)
    problem = MaskProblem(torch.tensor([[[1.0, -1.0, 2.0]]]))
    assert rule.mask(problem, 2).tolist() == [[[True, False, True]]]
    with pytest.raises(SparsemendError, match=r"mask rule 'odd' chose .* with 2 kept; allowed"):
        rule.mask(problem, 1)


def test_stand_ins_of_another_number_are_refused():
    rule = MaskRule(
        "odd",
        choose=lambda problem, _: problem.weight > 0,
        stand_ins=lambda problem, _: (problem.weight <= 0).byte(),
    )
    problem = MaskProblem(torch.tensor([[[1.0, -1.0, 2.0]]]))
    assert not rule.nested
    assert rule.entries(problem, [2]).tolist() == [[[0, 1, 0]]]
    with pytest.raises(SparsemendError, match=r"mask rule 'odd' chose .* with 2 kept; allowed"):
        rule.entries(problem, [1])


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (lambda weight: weight[0], r"no score per weight: got \[1, 3\]; .*tensor \[1, 1, 3\]"),
        (lambda weight: weight.tolist(), "no score per weight: got 'list'"),
        (lambda weight: weight.log(), "scores of mask 'odd' are NaN"),
    ],
)
def test_scores_are_checked(score, text):
    rule = MaskRule("odd", score=lambda problem: score(problem.weight))
    problem = MaskProblem(torch.tensor([[[1.0, -1.0, 2.0]]]))
    with pytest.raises(SparsemendError, match=text):
        rule.mask(problem, 1)
    infinite = MaskRule("sure", score=lambda problem: problem.weight / 0)
    assert infinite.mask(problem, 2).tolist() == [[[True, False, True]]]
