"""What every pattern makes of random layers, and what makes each the pattern that it is."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsemend import SparsemendError
from sparsemend.patterns import FREE, MatrixShape, parse_pattern
from sparsemend.solvers.ranking import descending_rank
from sparsemend.solvers.splitting import largest_entries

NAMES = (
    "free",
    "2:4",
    "1:8",
    "2:3",
    "n:2",
    "n:4",
    "block:1x4",
    "block:2x3",
    "block:4x1",
    "channel",
)
SHAPES = st.builds(
    MatrixShape, st.integers(1, 2), st.integers(1, 5), st.integers(1, 9), st.sampled_from((1, 4))
)


@st.composite
def cases(draw):
    """A structure on a random layer that can have it, and scores with many ties."""
    pattern = parse_pattern(draw(st.sampled_from(NAMES)))
    shape = draw(SHAPES)
    if hasattr(pattern, "m"):
        shape = shape._replace(channels=pattern.m * draw(st.integers(1, 2)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    matrix = (shape.groups, shape.rows, shape.channels * shape.taps)
    score = torch.randint(0, 4, matrix, generator=generator).float()
    return pattern.on(shape), shape, score


def reachable(structure, size):
    return sorted({structure.around(count)[0] for count in range(size + 1)})


@settings(max_examples=60)
@given(cases(), st.sampled_from(("layer", "row")))
def test_ranks_give_nested_masks_of_every_count_that_can_be_reached(case, within):
    structure, shape, score = case
    rank = structure.rank(score, within)
    assert rank.shape == score.shape
    assert sorted(rank.flatten().tolist()) == list(range(shape.size))
    for count in reachable(structure, shape.size):
        assert structure.holds(rank < count)


@settings(max_examples=60)
@given(cases())
def test_counts_around_a_count_are_the_nearest_that_can_be_reached(case):
    structure, shape, _ = case
    counts = reachable(structure, shape.size)
    for count in range(shape.size + 1):
        low, high = structure.around(count)
        assert (low, high) in [*itertools.pairwise(counts), *zip(counts, counts, strict=True)]
        assert len(counts) == 1 or low <= count <= high
        nearest = structure.nearest(count)
        assert nearest in counts
        assert nearest > 0
        others = [c for c in counts if c]
        assert abs(nearest - count) == min(abs(c - count) for c in others)


@settings(max_examples=60)
@given(cases())
def test_the_largest_are_those_ranked_best(case):
    structure, shape, score = case
    signs = torch.where(torch.arange(score.numel()).reshape(score.shape) % 2 == 0, 1.0, -1.0)
    rank = structure.rank(score)
    for count in reachable(structure, shape.size):
        assert torch.equal(structure.largest(score * signs, count), rank < count)
    # Budgets between: what can be kept below, or more than the pattern alone.
    least = structure.around(0)[0]
    for count in range(least, shape.size + 1):
        mask = structure.largest(score * signs, count)
        assert least <= int(mask.sum()) <= count
        assert int((mask & (rank < least)).sum()) == least


@given(SHAPES, st.integers(0, 99))
def test_free_is_the_ranking_of_the_layer(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(0, 4, (shape.groups, shape.rows, shape.channels), generator=generator)
    structure = FREE.on(shape)
    assert torch.equal(structure.rank(score), descending_rank(score))
    assert structure.largest is not largest_entries  # but the same
    assert torch.equal(structure.largest(score, 3), largest_entries(score, 3))


def test_n_of_m_runs_along_input_channels_at_one_tap():
    structure = parse_pattern("1:2").on(MatrixShape(1, 1, 4, 2))
    # Columns are channels times taps: channel 0 tap 0, channel 0 tap 1, channel 1 tap 0 …
    score = torch.tensor([[[5.0, 1.0, 2.0, 3.0, 4.0, 4.0, 6.0, 4.0]]])
    assert (structure.rank(score) < 4).int().tolist() == [[[1, 0, 0, 1, 0, 1, 1, 0]]]
    more = structure.largest(score, 5).int().tolist()
    assert more == [[[1, 0, 0, 1, 1, 1, 1, 0]]]  # of the others the largest


def test_an_n_by_layer_goes_up_in_steps_of_one_in_every_group():
    structure = parse_pattern("n:4").on(MatrixShape(1, 2, 4, 1))
    score = torch.tensor([[[5.0, 7.0, 6.0, 8.0], [4.0, 1.0, 3.0, 2.0]]])
    assert reachable(structure, 8) == [0, 2, 4, 6, 8]
    assert structure.rank(score).tolist() == [[[6, 2, 4, 0], [1, 7, 3, 5]]]
    assert not structure.holds(score > 4)
    assert structure.largest(score, 3).int().tolist() == [[[0, 1, 0, 1], [1, 0, 0, 0]]]


def test_blocks_go_by_mean_square_and_are_smaller_at_edges():
    structure = parse_pattern("block:2x2").on(MatrixShape(1, 3, 3, 1))
    assert reachable(structure, 9) == [0, 4, 6, 8, 9]
    matrix = torch.tensor([[[1.0, 1.0, 3.0], [1.0, 1.0, 0.0], [2.0, 0.0, 9.0]]])
    tiles = torch.tensor([[[1, 1, 2], [1, 1, 2], [3, 3, 4]]])
    assert structure.holds(tiles == 2)
    assert not structure.holds(tiles * 0 + torch.eye(3).bool() == 1)
    rank = structure.rank(matrix)
    assert [int(rank[tiles == n].max()) for n in (1, 2, 3, 4)] == [3, 5, 7, 8]
    assert structure.shared(matrix)[0, 1].tolist() == pytest.approx([1, 1, 4.5**0.5])


def test_channels_are_whole_rows_also_where_rows_are_to_keep_the_same():
    structure = parse_pattern("channel").on(MatrixShape(1, 3, 2, 2))
    score = torch.tensor([[[1.0] * 4, [3.0] * 4, [2.0] * 4]])
    for within in ("layer", "row"):
        assert (structure.rank(score, within) < 4)[0].any(dim=1).tolist() == [False, True, False]


def test_within_rows_every_band_of_blocks_keeps_the_same():
    structure = parse_pattern("block:1x2").on(MatrixShape(1, 2, 4, 1))
    score = torch.tensor([[[9.0, 9, 8, 8], [1, 1, 2, 2]]])
    assert (structure.rank(score, "row") < 4).int().tolist() == [[[1, 1, 0, 0], [0, 0, 1, 1]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_types(dtype):
    score = torch.rand(1, 4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    for name in NAMES:
        structure = parse_pattern(name).on(MatrixShape(1, 4, 8, 1))
        if parse_pattern(name).refusal(MatrixShape(1, 4, 8, 1)):
            continue
        assert structure.shared(score).dtype == dtype
        count = structure.nearest(16)
        assert torch.equal(structure.largest(score, count), structure.rank(score) < count)


@pytest.mark.parametrize(
    ("text", "name"),
    [("free", "free"), ("2:4", "2:4"), (" 02:04", "2:4"), ("n:4", "n:4"),
     ("block:1x4", "block:1x4"), ("channel", "channel")],
)  # fmt: skip
def test_spellings(text, name):
    pattern = parse_pattern(text)
    assert pattern.name == str(pattern) == name
    assert parse_pattern(name) == pattern


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2-4", "unknown pattern: got '2-4'; allowed: free, n:m as in 2:4, n:4 for"),
        (None, "unknown pattern"),
        ("4:4", "pattern n:m keeps n of every m weights: got '4:4'; allowed: 0 < n < m"),
        ("0:4", "pattern n:m keeps n"),
        ("n:1", "pattern n:m keeps n of every m weights: got 'n:1'; allowed: m of 2 or more"),
        ("block:0x4", "pattern block:RxC keeps blocks"),
        ("block4", "pattern block:RxC keeps blocks"),
    ],
)
def test_what_is_no_pattern(text, message):
    with pytest.raises(SparsemendError, match=message):
        parse_pattern(text)


def test_a_pattern_has_its_own_sparsity():
    pattern = parse_pattern("1:3")
    assert pattern.sparsity(None) == pattern.sparsity(0.667) == 2 / 3
    with pytest.raises(SparsemendError, match=r"'1:3' has another sparsity: got 0.5; .* 0.66"):
        pattern.sparsity(0.5)
    assert parse_pattern("channel").sparsity(0.5) == 0.5
    assert FREE.sparsity(None) is None


def test_layers_without_a_multiple_of_m_channels_cannot_have_it():
    assert "no multiple of 4" in parse_pattern("2:4").refusal(MatrixShape(1, 8, 3, 9))
    assert parse_pattern("2:4").refusal(MatrixShape(2, 8, 4, 9)) == ""
    assert parse_pattern("block:1x4").refusal(MatrixShape(1, 8, 3, 9)) == ""
