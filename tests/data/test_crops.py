import pytest
import torch

from sparsemend import SparsemendError
from sparsemend.data import token_crops


@pytest.mark.parametrize("as_given", [torch.tensor, list, lambda text: torch.tensor(text)[None]])
def test_crops_are_pieces_of_the_text(as_given):
    text = list(range(50, 70))
    crops = token_crops(as_given(text), 4, 200, seed=1)
    assert crops.shape == (200, 4)
    assert crops.dtype == torch.int64
    assert torch.equal(crops - crops[:, :1], torch.arange(4).expand(200, 4))
    assert set(crops[:, 0].tolist()) == set(range(50, 67))  # every place, the last one too


def test_the_seed_says_where_they_begin():
    text = range(1000)
    assert torch.equal(token_crops(text, 5, 8), token_crops(text, 5, 8, seed=0))
    assert not torch.equal(token_crops(text, 5, 8), token_crops(text, 5, 8, seed=1))
    assert token_crops(text, 1000, 2).tolist() == [list(text)] * 2


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (range(3), {"seqlen": 4, "nsamples": 1}, "shorter than a piece"),
        (range(3), {"seqlen": 0, "nsamples": 1}, "seqlen is out of range"),
        (range(3), {"seqlen": 2, "nsamples": 0}, "nsamples is out of range"),
        (torch.zeros(5), {"seqlen": 2, "nsamples": 1}, "no token numbers"),
        (torch.zeros(2, 5, dtype=torch.long), {"seqlen": 2, "nsamples": 1}, "no token numbers"),
        ([0.5, 1], {"seqlen": 2, "nsamples": 1}, "ids is of the wrong kind"),
    ],
)
def test_bad_input_is_one_clear_error(ids, options, message):
    with pytest.raises(SparsemendError, match=message):
        token_crops(ids, **options)
