import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.search.fakes import layer_set
from torch import nn

from sparsemend import models
from sparsemend.allocation import WeightQuota, round_to_budget
from sparsemend.layers import discover
from sparsemend.search.directions import counts_of, groups, log_densities, moves

exactly = WeightQuota.exactly
budgets = st.lists(
    st.integers(1, 10**9).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size))),
    min_size=1,
    max_size=60,
)


@given(budgets)
def test_counts_survive_their_logarithms(pairs):
    sizes, counts = zip(*pairs, strict=True)
    assert counts_of(log_densities(counts, sizes), exactly(sizes, sum(counts))) == counts
    # A common factor of the densities means nothing.
    assert counts_of(log_densities(counts, sizes) + 3.7, exactly(sizes, sum(counts))) == counts


@given(budgets, st.integers(0, 1000), st.floats(0, 30))
def test_any_point_becomes_an_exact_budget(pairs, seed, spread):
    sizes, counts = zip(*pairs, strict=True)
    point = np.random.default_rng(seed).normal(0, spread, len(sizes))
    found = counts_of(point, exactly(sizes, sum(counts)))
    assert sum(found) == sum(counts)
    assert all(1 <= n <= size for n, size in zip(found, sizes, strict=True))


def test_densities_beyond_dense_are_capped_and_the_rest_shared():
    assert counts_of(np.log([10.0, 1.0, 1.0]), exactly((10, 100, 100), 30)) == (10, 10, 10)


def test_densities_are_those_of_the_counts():
    assert log_densities((5, 100), (10, 100)).tolist() == pytest.approx([np.log(0.5), 0])
    assert log_densities((0, 1), (10, 100)).tolist() == pytest.approx(np.log([0.05, 0.01]))


class Residual(nn.Module):
    """A stem, a block with a projection and a depthwise convolution, one without, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.reduce = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.projection = nn.Conv2d(4, 8, 1, stride=2)
        self.inner, self.outer = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        inside = self.depthwise(torch.relu(self.reduce(x)))
        x = torch.relu(inside + self.projection(x))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        return self.head(x.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def residual():
    torch.manual_seed(0)
    return discover(Residual(), torch.randn(2, 3, 8, 8))


def named(layers):
    return {name: {layers[i].name for i in positions} for name, positions in groups(layers).items()}


def test_groups_of_a_residual_network(residual):
    assert named(residual) == {
        "projection": {"projection"},
        "first": {"stem"},
        "last": {"head"},
        "depthwise": {"depthwise"},
        "before sums": {"depthwise", "outer"},
        # The stem alone has the large grid, and it is the first layer.
        "4×4 grid": {"reduce", "depthwise", "projection", "inner", "outer"},
    }


def test_groups_of_the_built_in_network():
    layers = discover(models.create("cifar_resnet20", width=2), torch.randn(2, 3, 32, 32))
    found = named(layers)
    assert found["projection"] == {"layer2.0.downsample.0", "layer3.0.downsample.0"}
    assert found["before sums"] == {f"layer{s}.{b}.conv2" for s in (1, 2, 3) for b in range(3)}
    assert found["first"] == {"conv1"}
    assert found["last"] == {"fc"}
    assert found["32×32 grid"] == {"conv1"} | {x for x in layers.names if x.startswith("layer1")}
    for stage, grid in ((2, "16×16"), (3, "8×8")):
        assert found[f"{grid} grid"] == {x for x in layers.names if x.startswith(f"layer{stage}")}


def test_layers_without_grids_are_grouped_by_depth():
    layers = layer_set(((5, 5),) * 6)
    assert groups(layers) == {
        "first": (0,),
        "last": (5,),
        "first third": (0, 1),
        "middle third": (2, 3),
        "last third": (4, 5),
    }


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_groups_are_proper_and_distinct(count):
    found = list(groups(layer_set(((5, 5),) * count)).values())
    assert len(set(found)) == len(found)
    assert all(0 < len(positions) < count for positions in found)


def test_moves_of_groups_then_of_layers_the_largest_first(residual):
    sizes = [layer.size for layer in residual]
    counts = round_to_budget([0.5, 0.4, 0.3, 0.2, 0.1, 0.6, 0.7], sizes, sum(sizes) // 4)
    found = moves(residual, counts)
    assert [move.name for move in found if move.kind == "group"] == list(groups(residual))
    alone = [move.name for move in found if move.kind == "layer"]
    # Each layer has one move of its own, some as a group.
    assert set(alone) == {"reduce", "inner", "outer"}
    assert alone == sorted(alone, key=lambda name: -counts[residual[name].order])
    assert [move.kind for move in found] == ["group"] * 6 + ["layer"] * 3
    for move in found:
        assert move.direction.shape == (7,)
        assert np.isfinite(move.direction).all()
        assert move.direction.any()
    again = moves(residual, counts)
    assert [move.key for move in again] == [move.key for move in found]


def test_opposite_moves_are_one():
    """More for one of two layers is less for the other."""
    layers = layer_set(((5, 5),) * 2)
    found = moves(layers, (3, 4))
    assert [move.key for move in found] == [("group", "first")]
    assert moves(layer_set(((5, 5),)), (3,)) == []


def test_layers_that_are_called_like_groups_keep_their_moves():
    net = nn.Sequential()
    for index, name in enumerate(("a", "first", "depthwise", "last", "b")):
        net.add_module(name, nn.Linear(4 + index, 5 + index))
    layers = discover(net, torch.randn(2, 4))
    found = moves(layers, (1, 2, 3, 4, 5))
    by_key = {move.key: np.flatnonzero(move.direction).tolist() for move in found}
    assert len(by_key) == len(found)
    assert by_key["group", "first"] == [0]
    assert by_key["layer", "first"] == [1]
    assert by_key["group", "last"] == [4]
    assert by_key["layer", "last"] == [3]
    assert by_key["layer", "depthwise"] == [2]
