import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from sparsemend.calibration import PairedMoments
from sparsemend.operators import OPERATORS, Operator

from .samples import channels, from_channels, residuals, scales, statistics_of

# Operators that scale and shift, as against those that refit the kept weights.
CHANNELWISE = dict(OPERATORS)
MATCHING = [name for name in CHANNELWISE if name != "none"]


@pytest.mark.parametrize("name", MATCHING)
@given(channels(), st.floats(-5, 5))
def test_scales_and_residuals_of_the_table(name, case, error_mean):
    statistics = from_channels(case, error_mean=error_mean)
    operator = OPERATORS[name]
    scale = operator.scale(statistics)[0].numpy()
    np.testing.assert_allclose(scale, scales(case)[name], rtol=1e-6, atol=1e-10)
    got = operator.residual(statistics)[0].numpy() / case[0]
    np.testing.assert_allclose(got, residuals(case)[name] / case[0], rtol=1e-6, atol=1e-6)


@given(channels(), st.floats(-5, 5))
def test_without_repair_the_raw_distortion_stays(case, error_mean):
    statistics = from_channels(case, error_mean=error_mean)
    v, r, rho = case
    raw = v - 2 * rho * r * v + r**2 * v + error_mean**2
    np.testing.assert_allclose(
        OPERATORS["none"].residual(statistics)[0], raw, rtol=1e-9, atol=1e-9 * v.max()
    )
    assert torch.equal(OPERATORS["none"].scale(statistics), torch.ones(1, len(v)).double())


@given(channels(), st.floats(-5, 5))
def test_order_of_the_residuals(case, error_mean):
    statistics = from_channels(case, error_mean=error_mean)
    got = {name: operator.residual(statistics) for name, operator in CHANNELWISE.items()}
    rounding = 1e-9 * case[0].max()
    for name in CHANNELWISE:
        assert (got["affine"] <= got[name] + rounding).all(), name
        assert (got[name] >= -rounding).all(), name
    assert (got["mean"] <= got["none"] + rounding).all()


@given(st.integers(0, 999), st.integers(1, 4))
def test_residuals_are_what_the_repaired_outputs_lack(seed, count):
    """Apply g and h to samples and measure."""
    generator = torch.Generator().manual_seed(seed)
    z = 3 + torch.randn(50, count, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 50, count, generator=generator, dtype=torch.float64)
    pruned = 0.5 * z - 1 + noise
    moments = PairedMoments.empty(2, count, torch.device("cpu"))
    moments.update(z, pruned)
    statistics = moments.statistics()
    for operator in CHANNELWISE.values():
        g = operator.scale(statistics).unsqueeze(1)
        h = z.mean(0) - g * pruned.mean(1, keepdim=True) if operator.matches_mean else 0
        direct = (g * pruned + h - z).square().mean(1)
        torch.testing.assert_close(operator.residual(statistics), direct, rtol=1e-9, atol=1e-9)


def test_one_scale_for_all_channels_is_that_of_each():
    operator = Operator("half", lambda statistics: statistics.pruned_variance.new_tensor(0.5))
    assert operator.gains(statistics_of([1, 2], [1, 1], [0, 0])).tolist() == [[0.5, 0.5]]


# Relative Repairability of one centred channel


@given(channels(size=1))
def test_one_centred_channel(case):
    _, (r,), (rho,) = case
    raw = 1 + r**2 - 2 * r * rho
    assume(raw > 1e-3)
    statistics = from_channels(case)
    rr = OPERATORS["variance"].residual(statistics) / OPERATORS["none"].residual(statistics)
    assert rr.item() == pytest.approx(2 * (1 - rho) / raw, rel=1e-5, abs=1e-6)


@given(channels(size=1))
def test_repair_makes_it_worse_exactly_below_the_bound(case):
    _, (r,), (rho,) = case
    assume(abs(rho - (1 + r) / 2) > 1e-3)
    assume(abs(r - 1) > 1e-3)
    statistics = from_channels(case)
    rr = OPERATORS["variance"].residual(statistics) / OPERATORS["none"].residual(statistics)
    assert (rr.item() > 1) == (r < 1 and rho < (1 + r) / 2)


@pytest.mark.parametrize("name", ["variance", "layerwise", "affine"])
@given(st.floats(0.1, 10))
def test_a_pure_scaling_is_repaired_fully(name, factor):
    v = np.array([1.0, 2.0, 0.3])
    statistics = statistics_of(v, factor**2 * v, factor * v, mean=4.0, error_mean=2.0)
    assert OPERATORS[name].residual(statistics).abs().max() < 1e-8


@pytest.mark.parametrize("name", MATCHING)
def test_a_pure_shift_is_repaired_fully(name):
    v = np.array([1.0, 2.0, 0.3])
    statistics = statistics_of(v, v, v, error_mean=2.0)
    assert OPERATORS[name].residual(statistics).abs().max() < 1e-8
    assert (OPERATORS["none"].residual(statistics) == 4).all()


@pytest.mark.parametrize("name", CHANNELWISE)
def test_nothing_pruned_leaves_nothing_to_repair(name):
    v = np.array([1.0, 2.0, 1e-9, 0.0])
    assert OPERATORS[name].residual(statistics_of(v, v, v)).abs().max() < 1e-8


# Channels without variance


@pytest.mark.parametrize("name", CHANNELWISE)
@pytest.mark.parametrize(
    "v", [[1.0, 2.0, 0.5], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1e-30, 1.0, 1e30], [1.0]]
)
@pytest.mark.parametrize("pruned", [[0.0, 0.0, 0.0], [1.0, 0.0, 0.5], [0.5, 0.0, 0.0]])
def test_dead_channels_are_finite(name, v, pruned):
    v, pruned = np.array(v), np.array(pruned[: len(v)])
    statistics = statistics_of(v, pruned, 0.3 * np.sqrt(v * pruned), error_mean=1.0)
    operator = OPERATORS[name]
    assert operator.scale(statistics).isfinite().all()
    assert operator.residual(statistics).isfinite().all()


@pytest.mark.parametrize("name", MATCHING)
def test_an_emptied_channel_keeps_its_mean_at_best(name):
    statistics = statistics_of([1.0, 2.0], [0.0, 1.5], [0.0, 1.6], error_mean=3.0)
    assert OPERATORS[name].residual(statistics)[0, 0].item() == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("name", CHANNELWISE)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)])
def test_variants_are_independent(name, shape):
    generator = torch.Generator().manual_seed(0)
    v = torch.rand(3, generator=generator, dtype=torch.float64) + 0.5
    pruned = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
    error = (v.sqrt() - pruned.sqrt()).square() + 0.2
    every = [pruned, error]
    whole = OPERATORS[name].residual(type_of(v, *every))
    assert whole.shape == shape
    for index in np.ndindex(shape[:-1]):
        one = OPERATORS[name].residual(type_of(v, *(x[index] for x in every)))
        torch.testing.assert_close(whole[index], one, rtol=1e-12, atol=0)


def type_of(v, pruned, error):
    base = statistics_of(v, v, v)
    zero = torch.zeros_like(pruned)
    return type(base)(torch.zeros_like(v), v, pruned, zero, error)
