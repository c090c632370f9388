import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsemend.calibration import InputMoments, PairedMoments, moments
from sparsemend.calibration.moments import ColumnMoments, accumulator_dtype

CPU = torch.device("cpu")


def normal(*shape, seed=0, mean=0.0, dtype=torch.float32):
    """Inputs whose columns correlate, with a mean of their own each."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = x + 0.5 * x.roll(1, -1)
    offset = torch.randn(shape[-1:], generator=generator, dtype=torch.float64)
    return (x + mean * (1 + 0.1 * offset)).to(dtype)


def input_moments(*parts, groups=2, fan_in=3):
    accumulator = InputMoments.empty(groups, fan_in, CPU)
    for part in parts:
        accumulator.update(part)
    return accumulator


def paired_moments(*parts, variants=2, channels=3):
    accumulator = PairedMoments.empty(variants, channels, CPU)
    for dense, pruned in parts:
        accumulator.update(dense, pruned)
    return accumulator


def assert_input_oracle(got, x, tolerance):
    """Two passes over the whole in numpy's float64."""
    x = x.double().numpy()
    assert got.count == x.shape[1]
    mean = x.mean(axis=1)
    centred = x - mean[:, None]
    covariance = centred.transpose(0, 2, 1) @ centred / x.shape[1]
    scale = np.sqrt(np.einsum("gi,gj->gij", *[covariance.diagonal(axis1=1, axis2=2)] * 2))
    np.testing.assert_allclose(
        got.mean.numpy(), mean, rtol=1e-12, atol=tolerance * np.sqrt(scale.max())
    )
    assert np.abs(got.covariance.double().numpy() - covariance).max() <= tolerance * scale.max()
    np.testing.assert_allclose(
        got.column_square.numpy(), (x**2).mean(axis=1), rtol=1e-12 + tolerance
    )


def assert_paired_oracle(got, dense, pruned, rtol):
    dense, pruned = dense.double().numpy(), pruned.double().numpy()
    error = pruned - dense
    expected = {
        "dense_mean": dense.mean(axis=0),
        "dense_variance": dense.var(axis=0),
        "pruned_variance": pruned.var(axis=1),
        "error_mean": error.mean(axis=1),
        "error_variance": error.var(axis=1),
    }
    statistics = got.statistics()
    for name, value in expected.items():
        np.testing.assert_allclose(
            getattr(statistics, name).numpy(), value, rtol=rtol, atol=rtol, err_msg=name
        )


# Precision


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("wide", [False, True])
def test_input_moments_do_not_cancel(monkeypatch, dtype, mean, wide):
    if wide:  # sums in float32, as for a large fan-in
        monkeypatch.setattr(moments, "_FLOAT32_FROM", 1)
    x = normal(2, 4000, 3, mean=mean, dtype=dtype)
    got = input_moments(*x.split(256, dim=1))
    assert got.scatter.dtype == (torch.float32 if wide else torch.float64)
    exact = dtype == torch.float64 and not wide
    # A small product in float32 adds up its positions one by one.
    assert_input_oracle(got, x, 1e-11 if exact else 2e-5 if wide else 3e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_paired_moments_do_not_cancel(dtype, mean):
    dense = normal(4000, 3, mean=mean, dtype=dtype)
    pruned = torch.stack([dense + normal(4000, 3, seed=k, dtype=dtype) / 8 for k in (1, 2)])
    parts = zip(dense.split(256), pruned.split(256, dim=1), strict=True)
    assert_paired_oracle(paired_moments(*parts), dense, pruned, 1e-9)


def test_constant_inputs_have_no_variance():
    x = torch.full((2, 700, 3), 1234.567)
    got = input_moments(*x.split(64, dim=1))
    assert got.covariance.abs().max() < 1e-9
    paired = paired_moments((x[0], x + 1), (x[0], x + 1)).statistics()
    assert paired.dense_variance.abs().max() < 1e-9
    assert paired.error_variance.abs().max() < 1e-9
    torch.testing.assert_close(paired.error_mean, torch.ones(2, 3, dtype=torch.float64))


def test_the_covariance_is_symmetric_and_has_no_negative_eigenvalue():
    got = input_moments(*normal(2, 999, 3, mean=100).split(77, dim=1)).covariance
    torch.testing.assert_close(got, got.mT, rtol=0, atol=1e-12)
    assert torch.linalg.eigvalsh(got).min() > 0


def test_updates_leave_their_inputs_alone():
    x = normal(2, 50, 3, dtype=torch.float64)
    before = x.clone()
    accumulator = input_moments(x, x)
    accumulator.merge(input_moments(x))
    paired_moments((x[0], x))
    assert torch.equal(x, before)
    assert accumulator.count == 150


def test_wide_sums_are_float32():
    assert accumulator_dtype(1024, CPU) == torch.float64
    assert accumulator_dtype(1025, CPU) == torch.float32


# Merging


@st.composite
def partitions(draw):
    """Sizes of parts, some of them empty, and an order in which to merge."""
    sizes = draw(st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(sum))
    order = draw(st.permutations(range(len(sizes))))
    return sizes, order, draw(st.sampled_from((0.0, 1.0, 1e4))), draw(st.integers(0, 99))


def fold(accumulators, order):
    first, *others = (accumulators[index] for index in order)
    for other in others:
        first.merge(other)
    return first


@settings(max_examples=60)
@given(partitions())
def test_input_moments_merge_in_any_order(case):
    sizes, order, mean, seed = case
    x = normal(2, sum(sizes), 3, seed=seed, mean=mean, dtype=torch.float64)
    parts = x.split(sizes, dim=1)
    merged = fold([input_moments(part) for part in parts], order)
    assert_input_oracle(merged, x, 1e-9)
    assert_input_oracle(input_moments(*parts), x, 1e-9)


@settings(max_examples=60)
@given(partitions())
def test_paired_moments_merge_in_any_order(case):
    sizes, order, mean, seed = case
    dense = normal(sum(sizes), 3, seed=seed, mean=mean, dtype=torch.float64)
    pruned = normal(2, sum(sizes), 3, seed=seed + 1, mean=mean, dtype=torch.float64)
    parts = list(zip(dense.split(sizes), pruned.split(sizes, dim=1), strict=True))
    merged = fold([paired_moments(part) for part in parts], order)
    assert_paired_oracle(merged, dense, pruned, 1e-9)
    assert_paired_oracle(paired_moments(*parts), dense, pruned, 1e-9)


def test_merging_with_nothing_changes_nothing():
    x = normal(2, 9, 3)
    merged = input_moments()
    merged.merge(input_moments())
    merged.merge(input_moments(x))
    merged.merge(input_moments())
    alone = input_moments(x)
    assert merged.count == alone.count
    assert torch.equal(merged.mean, alone.mean)
    assert torch.equal(merged.scatter, alone.scatter)
    empty = ColumnMoments.empty((3,), CPU)
    empty.merge(ColumnMoments.empty((3,), CPU))
    assert (empty.count, empty.scatter.sum().item()) == (0, 0)


def test_merging_leaves_the_other_alone():
    one, other = input_moments(normal(2, 9, 3)), input_moments(normal(2, 5, 3, seed=1))
    mean, scatter = other.mean.clone(), other.scatter.clone()
    one.merge(other)
    assert (other.count, one.count) == (5, 14)
    assert torch.equal(other.mean, mean)
    assert torch.equal(other.scatter, scatter)


def test_a_mean_square_is_never_below_zero():
    found = InputMoments(4, torch.zeros(1, 2), torch.tensor([[[-1e-7, 0.0], [0.0, 1.0]]]))
    assert found.column_square.tolist() == [[0.0, 0.25]]
