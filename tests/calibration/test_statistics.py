import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsemend.calibration import PairedMoments


@settings(max_examples=50)
@given(st.integers(0, 999), st.floats(-3, 3), st.integers(2, 40))
def test_statistics_are_those_of_the_samples(seed, scale, count):
    """Every derived quantity against its definition as an expectation."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, 3, generator=generator, dtype=torch.float64) + 5
    pruned = 0.7 * z + torch.randn(2, count, 3, generator=generator, dtype=torch.float64) - 2
    moments = PairedMoments.empty(2, 3, torch.device("cpu"))
    moments.update(z, pruned)
    statistics = moments.statistics()

    centred, other = z - z.mean(0), pruned - pruned.mean(1, keepdim=True)
    shift = z.mean(0) - scale * pruned.mean(1)
    repaired = scale * pruned + shift.unsqueeze(1)
    expected = {
        "pruned_mean": pruned.mean(1),
        "covariance": (centred * other).mean(1),
        "error_covariance": (other * (other - centred)).mean(1),
        "raw_distortion": (pruned - z).square().mean(1),
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(statistics, name), value, rtol=1e-9, atol=1e-9)
    residual = statistics.residual_distortion(torch.tensor(scale, dtype=torch.float64))
    torch.testing.assert_close(residual, (repaired - z).square().mean(1), rtol=1e-9, atol=1e-9)
