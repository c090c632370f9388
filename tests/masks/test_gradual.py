"""Gradual masks: exact counts, and supports that reconstruct better than the largest weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsemend import SparsemendError, calibrate, diagnose, prune
from sparsemend.calibration import InputMoments
from sparsemend.damage.refit import refitted_damage
from sparsemend.masks import MaskProblem, dense_fit, get_lone_mask_rule, mask_names
from sparsemend.masks.gradual import GRADUAL
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.patterns import parse_pattern
from sparsemend.patterns.matrix_shape import MatrixShape


def layer(groups=1, rows=6, width=12, seed=0, positions=200):
    """Dense weights and moments of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(groups, rows, width, generator=generator)
    x = torch.randn(groups, positions, width, generator=generator)
    mix = torch.randn(groups, width, width, generator=generator) / width**0.5
    moments = InputMoments.empty(groups, width, torch.device("cpu"))
    moments.update(x @ (torch.eye(width) + mix) + 0.5)
    return dense, moments


def gradual(dense, covariance, kept):
    return GRADUAL.mask(MaskProblem(dense, fit=dense_fit(dense, covariance)), kept)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 8), st.integers(0, 999), st.data())
def test_counts_are_exact(groups, rows, width, seed, data):
    dense, moments = layer(groups, rows, width, seed)
    kept = data.draw(st.integers(0, dense.numel()))
    mask = gradual(dense, moments.covariance, kept)
    assert mask.shape == dense.shape
    assert mask.dtype == torch.bool
    assert int(mask.sum()) == kept


def residual(dense, mask, moments):
    variance = ((dense.double() @ moments.covariance) * dense).sum(dim=2).flatten()
    return float((refitted_damage(dense, [mask], moments)[0] / variance).mean())


@pytest.mark.parametrize("density", [0.05, 0.1, 0.3, 0.6])
def test_reconstructs_better_than_the_largest_weights(density):
    ours, theirs = [], []
    for seed in range(6):
        dense, moments = layer(seed=seed)
        kept = round(density * dense.numel())
        ours.append(residual(dense, gradual(dense, moments.covariance, kept), moments))
        theirs.append(residual(dense, MAGNITUDE.mask(MaskProblem(dense), kept), moments))
    assert sum(ours) < sum(theirs)


def test_better_through_a_diagnosis_too():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3))
    calibration = calibrate(net, torch.randn(30, 3, 7, 7).cumsum(dim=3))
    densities = [0.05, 0.1, 0.2, 0.5]
    ours, theirs = (
        diagnose(net, calibration, "reconstruct", densities=densities, mask=mask).residual
        for mask in ("gradual", "magnitude")
    )
    assert (ours.mean(axis=1) < theirs.mean(axis=1)).all()


def test_scales_of_columns_and_rows_do_not_matter():
    dense, moments = layer(rows=4, width=8)
    columns, rows = torch.logspace(-2, 2, 8), torch.tensor([[[0.01], [1.0], [5.0], [300.0]]])
    covariance = moments.covariance * columns.unsqueeze(1) * columns
    other = gradual(dense * rows / columns, covariance, 11)
    assert torch.equal(other, gradual(dense, moments.covariance, 11))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_repeats_and_leaves_its_arguments_alone(dtype):
    dense, moments = layer()
    dense, covariance = dense.to(dtype), moments.covariance
    before = dense.clone(), covariance.clone()
    masks = [gradual(dense, covariance, 15) for _ in range(2)]
    assert torch.equal(*masks)
    assert torch.equal(dense, before[0])
    assert torch.equal(covariance, before[1])


def test_dead_inputs_and_rows_are_dropped_first():
    dense, moments = layer(rows=4, width=8)
    covariance = moments.covariance.clone()
    covariance[:, 2], covariance[:, :, 2] = 0, 0
    dense[:, 1] = 0
    mask = gradual(dense, covariance, 10)
    assert int(mask.sum()) == 10
    assert not mask[..., 2].any()
    assert not mask[:, 1].any()
    everything = gradual(dense, torch.zeros_like(covariance), 10)
    assert int(everything.sum()) == 10


@pytest.mark.parametrize("text", ["2:4", "n:4", "block:2x3", "channel"])
def test_stand_ins_have_the_pattern_and_hold_each_other(text):
    dense, moments = layer(rows=6, width=16)
    dense[:, 1], dense[:, :, 3] = 0, 0  # worth nothing, and kept before what is gone already
    structure = parse_pattern(text).on(MatrixShape(1, 6, 16, 1))
    problem = MaskProblem(dense, fit=dense_fit(dense, moments.covariance), structure=structure)
    kept = sorted({structure.nearest(round(density * 96)) for density in (0.1, 0.3, 0.5, 0.9, 1)})
    entries = GRADUAL.entries(problem, kept)  # which checks that counts and pattern are right
    assert entries.shape == dense.shape


def test_pruning_alone_cannot_choose_them():
    assert "gradual" in mask_names()
    text = (
        r"^mask 'gradual' is chosen jointly with the reconstructed values; allowed: magnitude, "
        r"activation where weights are pruned on their own; use sparsemend.compress with a repair"
    )
    net = nn.Sequential(nn.Linear(4, 3))
    before = net[0].weight.detach().clone()
    with pytest.raises(SparsemendError, match=text):
        get_lone_mask_rule("gradual")
    for inplace in (False, True):
        with pytest.raises(SparsemendError, match=text):
            prune(net, {"0": 5}, mask="gradual", inplace=inplace)
    assert torch.equal(net[0].weight, before)
