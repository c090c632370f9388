import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsemend.calibration import InputMoments, PairedMoments
from sparsemend.damage import output_statistics
from sparsemend.operators import OPERATORS

CPU = torch.device("cpu")
FIELDS = ("dense_mean", "dense_variance", "pruned_variance", "error_mean", "error_variance")


def input_moments(x):
    moments = InputMoments.empty(x.shape[0], x.shape[2], CPU)
    moments.update(x)
    return moments


def direct_statistics(dense, pruned, x):
    """From the outputs themselves, in float64."""
    moments = PairedMoments.empty(len(pruned), dense.shape[0] * dense.shape[1], CPU)
    z, *others = ((x.double() @ w.double().mT).transpose(0, 1).flatten(1) for w in (dense, *pruned))
    moments.update(z, torch.stack(others))
    return moments.statistics()


@settings(max_examples=50)
@given(
    st.integers(0, 999),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 20)),
    st.sampled_from((0.0, 1.0, 1e3)),
)
def test_moments_of_inputs_give_moments_of_outputs(seed, sizes, mean):
    groups, rows, columns, positions = sizes
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = random(groups, positions, columns) + mean
    dense = random(groups, rows, columns)
    pruned = [dense * (random(groups, rows, columns) > cut) for cut in (-1, 0, 1, 9)]
    got = output_statistics(dense, pruned, input_moments(x))
    expected = direct_statistics(dense, pruned, x)
    for name in FIELDS:
        torch.testing.assert_close(
            getattr(got, name), getattr(expected, name), rtol=1e-8, atol=1e-9 * (1 + mean)
        )


def test_the_layer_keeps_its_weights():
    dense = torch.randn(1, 3, 4)
    before = dense.clone()
    pruned = [dense * 0.5]
    output_statistics(dense, pruned, input_moments(torch.randn(1, 20, 4)))
    assert torch.equal(dense, before)
    assert torch.equal(pruned[0], before * 0.5)


@pytest.mark.parametrize("columns", [8, 1100])  # sums in float64, and in float32
@pytest.mark.parametrize("name", ["mean", "variance", "layerwise", "shrinkage", "affine"])
def test_outputs_that_pruning_made_constant(columns, name):
    """Rows without weights, or with weights on constant inputs only, leave v and no more."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3000, columns, generator=generator)
    x[..., :2] = 3.0
    dense = torch.randn(1, 4, columns, generator=generator)
    pruned = dense.clone()
    pruned[0, 0] = 0
    pruned[0, 1, 2:] = 0
    pruned[0, 2, 3:] = 0
    got = output_statistics(dense, [pruned], input_moments(x))
    expected = direct_statistics(dense, [pruned], x)
    assert (got.pruned_variance[0, :2] == 0).all()
    operator = OPERATORS[name]
    torch.testing.assert_close(
        operator.residual(got), operator.residual(expected), rtol=1e-4, atol=0
    )


def test_variances_are_never_negative():
    x = torch.ones(1, 50, 8) * torch.linspace(-3, 3, 8)
    dense = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    got = output_statistics(dense, [dense * 0, dense * 0.3, dense], input_moments(x))
    for name in ("dense_variance", "pruned_variance", "error_variance"):
        assert (getattr(got, name) >= 0).all(), name
