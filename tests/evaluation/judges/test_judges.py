"""What holds for every judge of the registry, and the definitions of each (method, section 9)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from sparsemend.evaluation import JUDGES
from sparsemend.evaluation.judges import Score

COSINE, RELATIVE = JUDGES["cosine"], JUDGES["relative"]
every_judge = pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)


def pair(samples=40, features=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(samples, features, generator=generator)
    return dense, dense + 0.3 * torch.randn(samples, features, generator=generator)


def per_sample(judge, dense, sparse):
    losses = judge.loss(dense, sparse)
    return losses.flatten(1).sum(dim=1) if losses.dim() > 1 else losses


@every_judge
def test_equal_outputs_have_no_loss_and_others_have(judge):
    dense, sparse = pair()
    assert (judge.loss(dense, dense) == 0).all()
    losses = per_sample(judge, dense, sparse)
    assert losses.shape == (40,)
    assert (losses > 0).all()


@every_judge
def test_a_sample_has_its_own_loss(judge):
    dense, sparse = pair()
    alone = torch.cat([per_sample(judge, dense[i : i + 1], sparse[i : i + 1]) for i in range(40)])
    torch.testing.assert_close(per_sample(judge, dense, sparse), alone)


@every_judge
def test_losses_can_be_followed_downhill(judge):
    dense, sparse = pair()
    sparse.requires_grad_()
    before = judge.loss(dense, sparse).sum()
    before.backward()
    assert sparse.grad.isfinite().all()
    after = judge.loss(dense, sparse.detach() - 0.01 * sparse.grad).sum()
    assert after < before


@every_judge
def test_what_is_summed_of_dense_outputs_adds_up(judge):
    if judge.sums is None:
        assert judge.constant is None
        return
    dense, _ = pair()
    parts = judge.sums(dense[:13]) + judge.sums(dense[13:])
    torch.testing.assert_close(parts, judge.sums(dense))


@every_judge
def test_perfect_recovery_is_one(judge):
    assert judge.recovery(Score(0.0, top1=1.0, chance=0.2, constant=0.5)) == 1


@given(st.integers(0, 1000), st.floats(-100, 100))
def test_relative_is_the_share_of_the_variance(seed, shift):
    dense, sparse = pair(seed=seed)
    dense, sparse = dense.double() + shift, sparse.double() + shift
    y, other = dense.numpy(), sparse.numpy()
    variance = np.square(y - y.mean(axis=0)).sum(axis=1).mean()
    constant = RELATIVE.constant(RELATIVE.sums(dense), len(dense))
    assert constant == pytest.approx(variance, rel=1e-6)
    found = float(RELATIVE.loss(dense, sparse).sum()) / len(dense) / constant
    assert found == pytest.approx(np.square(y - other).sum(axis=1).mean() / variance, rel=1e-6)
    # The mean output loses all there is.
    mean = dense.mean(dim=0, keepdim=True).expand_as(dense)
    assert float(RELATIVE.loss(dense, mean).sum()) / len(dense) == pytest.approx(constant, rel=1e-6)


@pytest.mark.parametrize(("value", "unit"), [(3.0, 18.0), (0.0, 1.0)])
def test_outputs_that_do_not_vary_are_measured_by_their_size(value, unit):
    dense = torch.full((4, 2), value)
    assert RELATIVE.constant(RELATIVE.sums(dense), 4) == unit
    assert RELATIVE.constant(RELATIVE.sums(dense[:1]), 1) == unit


def test_cosine_is_of_the_angle():
    dense, sparse = pair()
    expected = 1 - F.cosine_similarity(dense.double(), sparse.double(), dim=1)
    torch.testing.assert_close(COSINE.loss(dense, sparse), expected)
    torch.testing.assert_close(COSINE.loss(dense, 3 * sparse), expected)
    zero = torch.zeros(1, 5)
    assert COSINE.loss(zero, zero).tolist() == [0]
    assert COSINE.loss(zero, dense[:1]).tolist() == [1]
    assert COSINE.loss(dense[:1], zero).tolist() == [1]


def test_no_constant_embedding_is_closer_than_the_mean_direction():
    dense, _ = pair()
    dense += 1
    constant = COSINE.constant(COSINE.sums(dense), len(dense))
    mean = F.normalize(dense, dim=1).mean(dim=0)

    def loss(embedding):
        return float(COSINE.loss(dense, embedding.expand_as(dense)).mean())

    assert loss(mean) == pytest.approx(constant)
    assert all(loss(mean + 0.1 * torch.randn(5)) >= constant for _ in range(20))
    assert COSINE.recovery(Score(constant / 4, constant=constant)) == 0.75
    assert COSINE.recovery(Score(0.0, constant=0.0)) is None
