"""Repairs stay sane on inputs that they have not seen, and are as they were on ordinary ones."""

import warnings
from functools import lru_cache

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.calibration import OutputStatistics
from sparsemend.operators import OPERATORS
from sparsemend.repairs import evidence
from sparsemend.repairs.evidence import Spread

from .networks import conv_bn, images, perceptron, prune_half, same_state

# How the last 16 of 64 inputs are: they fire rarely, hardly vary, or have heavy tails.
KINDS = {
    "rare": lambda n, u: 1e-3 * torch.exp(2.5 * n) * (u < 0.01),
    "rarer": lambda n, u: 1e-2 * torch.exp(2.5 * n) * (u < 0.003),
    "still": lambda n, u: 1e-5 * n + 3 * n * (u < 1e-4),
    "heavy": lambda n, u: 1e-3 * n / u.clamp(min=1e-4),
}


def statistics_of(v, pruned, q):
    v, pruned, q = (torch.as_tensor(x, dtype=torch.float64).reshape(-1) for x in (v, pruned, q))
    zero = torch.zeros_like(v)
    return OutputStatistics(zero, v, pruned[None], zero[None], (v - 2 * q + pruned)[None])


def draw(kind, count, seed):
    source = torch.Generator().manual_seed(seed)
    common = torch.randn(count, 48, generator=source)
    n = torch.randn(count, 16, generator=source)
    u = torch.rand(count, 16, generator=source)
    return torch.cat([common, KINDS[kind](n, u)], 1)


@lru_cache
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()


def worst_error(kind, repair, rule):
    dense, others = network(), draw(kind, 20_000, 2)
    batches = list(draw(kind, 512, 1).split(128))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sm.SparsemendWarning)
        result = sm.compress(dense, batches, 0.95, rule=rule, mask="magnitude", repair=repair)
    with torch.no_grad():
        wanted, found = dense(others), result.model(others)
    return ((wanted - found).norm(dim=1) / wanted.norm(dim=1)).max().item()


@pytest.mark.parametrize("rule", ["lamp", "global"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_repair_is_far_worse_than_none_on_inputs_that_it_has_not_seen(kind, rule):
    unrepaired = worst_error(kind, "none", rule)
    for repair in ("mean", "variance", "layerwise", "shrinkage", "affine", "reconstruct"):
        assert worst_error(kind, repair, rule) <= 3 * unrepaired, repair


@pytest.mark.filterwarnings("ignore:reconstruction leans")
@pytest.mark.parametrize("repair", ["variance", "affine", "reconstruct"])
def test_the_channels_that_are_held_back_are_named(repair):
    batches = list(draw("rare", 512, 1).split(128))
    result = sm.compress(network(), batches, 0.95, rule="lamp", mask="magnitude", repair=repair)
    kept = result.masks["0"]
    only_rare = (kept.any(dim=1) & ~kept[:, :48].any(dim=1)).nonzero().flatten().tolist()
    assert only_rare
    assert set(only_rare) <= set(result.held_back["0"])
    assert "channels held back" in str(result)
    assert result.to_dict()["held_back"]["0"] == list(result.held_back["0"])


# Random convolutions leave channels that hardly ever fire, on which a reconstruction is held back.
@pytest.mark.parametrize(
    ("repair", "spatial"),
    [
        *((name, spatial) for name in ("variance", "affine") for spatial in (False, True)),
        ("layerwise", True),
        ("reconstruct", False),
    ],
)
def test_ordinary_networks_are_repaired_as_if_all_evidence_were_ample(repair, spatial, monkeypatch):
    dense = conv_bn(width=8) if spatial else perceptron(sizes=(100, 32, 5))
    inputs = images(128) if spatial else images(128).flatten(1)
    batches, pruned = list(inputs.split(32)), prune_half(dense, 0.7)
    repaired = sm.repair(pruned, dense, batches, repair)  # a warning would be an error
    monkeypatch.setattr(evidence, "_ENOUGH", 1e-30)
    assert same_state(repaired, sm.repair(pruned, dense, batches, repair))


def test_effective_numbers_are_those_of_equal_shares():
    spread = Spread.empty(torch.zeros(3))
    for _ in range(4):  # batches add up
        spread.add(torch.tensor([[2.0, 0.0, 0.0]] * 5))
    spread.add(torch.tensor([[0.0, 7.0, 0.0]]))
    assert spread.effective.tolist() == [20, 1, 0]


def test_gains_without_evidence_are_one_and_are_bounded_by_it():
    statistics = statistics_of([1.0, 4.0, 1.0], [1e-8, 1e-12, 0.5], [1e-5, 1e-7, 0.6])
    for trust in (0.0, 0.5, 0.99):
        some = statistics.trusted(torch.tensor([trust, trust, 1.0]).double())
        for name in ("variance", "affine"):
            scale = OPERATORS[name].scale(some)[0]
            assert (scale[:2] <= 1.001 * (1 - trust) ** -0.5).all()
            assert scale[2] == OPERATORS[name].scale(statistics)[0][2]  # bit for bit
            if trust == 0:
                torch.testing.assert_close(scale[:2], torch.ones(2).double())
    assert statistics.trusted(torch.ones(3).double()) is statistics


def test_partly_trusted_statistics_are_those_with_observations_of_no_error():
    """Share t of the samples as observed, the rest with z' = z."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(600, generator=generator, dtype=torch.float64)
    z -= z.mean()
    pruned = 0.1 * z + 0.01 * torch.randn(600, generator=generator, dtype=torch.float64)
    pruned -= pruned.mean()
    mixed = torch.cat([pruned, z, z])  # t = 1 / 3
    both = torch.cat([z, z, z])
    observed = statistics_of(z.var(correction=0), pruned.var(correction=0), (z * pruned).mean())
    wanted = statistics_of(both.var(correction=0), mixed.var(correction=0), (both * mixed).mean())
    found = observed.trusted(torch.tensor([1 / 3]).double())
    torch.testing.assert_close(found.pruned_variance, wanted.pruned_variance)
    torch.testing.assert_close(found.error_variance, wanted.error_variance)
    torch.testing.assert_close(found.covariance, wanted.covariance)
