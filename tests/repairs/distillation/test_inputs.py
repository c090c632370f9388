"""Inputs of steps: every one in turn, changed only where a change of inputs means something."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsemend.repairs.distillation.inputs import _mixed, _pasted, drawn


def take(batches, size, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return list(itertools.islice(drawn(batches, size, generator), steps))


def test_token_ids_come_unchanged_and_all_before_any_comes_again():
    ids = torch.arange(30).reshape(10, 3)
    epoch = torch.cat(take(list(ids.split(4)), 4, 3))
    assert sorted(map(tuple, epoch.tolist())) == sorted(map(tuple, ids.tolist()))


def test_batches_of_another_form_come_in_pieces():
    batches = [{"ids": torch.arange(6 * n).reshape(6, n), "flag": True} for n in (2, 3)]
    pieces = take(batches, 4, 4)
    assert [len(piece["ids"]) for piece in pieces] == [3, 3, 3, 3]
    assert sorted(torch.cat([piece["ids"].flatten() for piece in pieces]).tolist()) == sorted(
        torch.cat([batch["ids"].flatten() for batch in batches]).tolist()
    )
    assert all(piece["flag"] for piece in pieces)


def test_the_same_seed_draws_the_same():
    batches = list(torch.randn(20, 3, 8, 8).split(7))
    one, other = take(batches, 8, 4), take(batches, 8, 4)
    assert all(map(torch.equal, one, other))
    assert not torch.equal(one[0], take(batches, 8, 1, seed=1)[0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from([(5,), (3, 9, 9), (4, 6)]))
def test_changed_inputs_stay_within_the_range_of_the_given_ones(seed, shape):
    x = torch.rand(12, *shape, generator=torch.Generator().manual_seed(seed)) + 1
    (batch,) = take([x], 12, 1, seed)
    assert batch.shape == x.shape
    assert batch.max() <= x.max() + 1e-6
    assert batch.min() >= (0 if len(shape) == 3 else 1)  # images: zeros come in at the border


def test_shares_of_one_and_nothing():
    x, partner = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    share = torch.tensor([1.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    assert _mixed(x, partner, share).flatten(1).mean(dim=1).tolist() == [0, 1]
    pasted = _pasted(x, partner, share, generator).flatten(1).mean(dim=1)
    assert pasted[0] == 0
    assert pasted[1] >= 0.25  # a box of the image's size, around a place within it


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(1, 400), st.integers(1, 90))
def test_about_a_thousand_tokens_come_together(seed, count, length):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 9, (count, length), generator=generator)
    held = torch.randint(1, length + 1, (count, 1), generator=generator)
    mask = (torch.arange(length) < held).long()
    pieces = take([{"input_ids": ids, "attention_mask": mask}], 128, 1, seed)
    rows = len(pieces[0]["input_ids"])
    mean = float(mask.sum()) / count
    assert 1 <= rows <= 128
    # Batches are cut into pieces of one size, so that some are up to half as large.
    assert rows * mean <= 1024 + mean
    assert rows >= min(count, 128, round(1024 / mean)) // 2
    (plain,) = take([ids], 128, 1, seed)
    assert len(plain) == max(1, min(128, count, round(1024 / length)))
