import dataclasses
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.allocation.networks import make_layers, make_moments, random_weights

from sparsemend.allocation import (
    RULES,
    allocate_layers,
    hold_to_patterns,
    kept_total,
    round_to_budget,
)
from sparsemend.errors import SparsemendError
from sparsemend.patterns import FREE, MatrixShape, parse_pattern

TILED = ("block:1x4", "block:2x3", "channel")


@st.composite
def cases(draw):
    """Counts of a budget over a few small layers of one pattern."""
    pattern = parse_pattern(draw(st.sampled_from(TILED)))
    shapes = draw(
        st.lists(
            st.builds(MatrixShape, st.just(1), st.integers(1, 4), st.integers(1, 7), st.just(1)),
            min_size=1,
            max_size=5,
        )
    )
    sizes = [shape.size for shape in shapes]
    structures = [pattern.on(shape) for shape in shapes]
    keep = draw(st.integers(sum(s.least for s in structures), sum(sizes)))
    shares = draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    return round_to_budget(shares, sizes, keep), sizes, structures, keep


@given(cases())
def test_counts_can_be_reached_and_no_choice_of_neighbours_is_nearer(case):
    counts, sizes, structures, keep = case
    held = hold_to_patterns(counts, sizes, structures, keep)
    assert all(count in s.around(count) for s, count in zip(structures, held, strict=True))
    assert all(count >= s.least for s, count in zip(structures, held, strict=True))
    if all(count >= s.least for s, count in zip(structures, counts, strict=True)):
        around = [s.around(count) for s, count in zip(structures, counts, strict=True)]
        assert all(count in pair for count, pair in zip(held, around, strict=True))
        nearest = min(abs(sum(choice) - keep) for choice in itertools.product(*around))
        assert abs(sum(held) - keep) == nearest
    assert hold_to_patterns(held, sizes, structures, sum(held)) == held
    assert hold_to_patterns(counts, sizes, [FREE.on(None)] * len(sizes), keep) == counts


def layer_with(layer, pattern):
    return dataclasses.replace(layer, pattern=parse_pattern(pattern))


SHAPES = [(6, 4, 3, 3), (8, 6, 3, 3), (5, 8)]


@pytest.mark.parametrize("pattern", TILED)
@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if not rule.diagnosed])
def test_every_rule_gives_counts_that_the_pattern_allows(rule, pattern):
    layers = [layer_with(layer, pattern) for layer in make_layers(SHAPES)]
    moments = make_moments(layers)
    allocation = allocate_layers(layers, random_weights(layers), 0.4, rule, moments=moments)
    for layer in layers:
        assert allocation[layer.name] in layer.structure.around(allocation[layer.name])
    largest = max(layer.structure.least for layer in layers)
    assert abs(allocation.kept - kept_total(0.4, allocation.total)) <= largest


def test_global_keeps_the_blocks_of_the_largest_mean_square():
    layers = [layer_with(layer, "block:1x2") for layer in make_layers([(1, 4), (1, 4)])]
    weights = {
        "layer0": torch.tensor([[3.0, 3.0, 9.0, 0.0]]),
        "layer1": torch.tensor([[7.0, 7.0, 0.1, 0.1]]),
    }
    # Alone 9 and the two sevens are larger than the threes, and so are their blocks.
    assert dict(allocate_layers(layers, weights, 0.5, "global")) == {"layer0": 2, "layer1": 2}
    assert dict(allocate_layers(layers, weights, 0.25, "global")) == {"layer0": 4, "layer1": 2}


def test_a_pattern_with_a_density_has_rule_uniform_and_its_own_sparsity():
    layers = [layer_with(layer, "1:4") for layer in make_layers([(3, 4, 3, 3), (5, 8)])]
    allocation = allocate_layers(layers, {}, 0.75, "uniform")
    assert dict(allocation) == {"layer0": 27, "layer1": 10}
    with pytest.raises(SparsemendError, match=r"'1:4' has another sparsity: got 0.5; allowed: spa"):
        allocate_layers(layers, {}, 0.5, "uniform")
    with pytest.raises(SparsemendError, match="cannot have rule: got 'erk'; allowed: 'uniform'"):
        allocate_layers(layers, {}, 0.75, "erk")


def test_too_few_weights_for_a_unit_of_every_layer():
    layers = [layer_with(layer, "channel") for layer in make_layers([(2, 8), (2, 8)])]
    with pytest.raises(SparsemendError, match=r"largest feasible sparsity is 0.5"):
        allocate_layers(layers, {}, 0.9, "uniform")
