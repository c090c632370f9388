import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sparsemend import Perplexity, SparsemendError, perplexity

VOCABULARY = 7


class Bigram(nn.Module):
    """Logits of the next token by the present one, as a network of transformers returns them."""

    def __init__(self, named=True):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.named = nn.Embedding(VOCABULARY, VOCABULARY), named

    def forward(self, input_ids, attention_mask=None):  # noqa: ARG002
        scores = self.table(input_ids)
        return SimpleNamespace(logits=scores, hidden=scores[0]) if self.named else scores


def by_hand(ids):
    """Probabilities of all tokens but the first of one sequence."""
    p = Bigram().table.weight.detach().softmax(dim=1)
    return [float(p[a, b]) for a, b in pairwise(ids)]


def drawn(*shape, seed=0):
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def test_every_token_is_judged_by_those_before_it():
    batches = [drawn(3, 5), drawn(2, 4, seed=1)]
    p = [one for batch in batches for row in batch.tolist() for one in by_hand(row)]
    found = perplexity(Bigram(), batches)
    assert found.count == len(p) == 3 * 4 + 2 * 3
    assert float(found) == pytest.approx(math.prod(p) ** (-1 / len(p)))
    for other in ([{"input_ids": batch} for batch in batches], [(batch,) for batch in batches]):
        assert perplexity(Bigram(named=False), other) == found


def test_even_odds_have_the_perplexity_of_their_number():
    model = Bigram()
    nn.init.zeros_(model.table.weight)
    assert float(perplexity(model, drawn(4, 6))) == pytest.approx(VOCABULARY)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_neither_predicted_nor_predicted_from(side):
    ids, short = drawn(2, 6), 4
    mask = torch.ones_like(ids)
    place = slice(None, 6 - short) if side == "left" else slice(short, None)
    mask[1, place] = 0
    kept = ids[1][mask[1].bool()]
    batch = {"input_ids": ids, "attention_mask": mask}
    assert perplexity(Bigram(), [batch]).loss == pytest.approx(
        perplexity(Bigram(), [ids[:1], kept[None]]).loss
    )
    assert perplexity(Bigram(), [((), batch)]) == perplexity(Bigram(), [batch])


def test_reads_as_a_number_and_as_text():
    found = Perplexity(math.log(12.5), 1234)
    assert float(found) == pytest.approx(12.5)
    assert str(found) == "perplexity 12.50 on 1,234 tokens"
    assert float(Perplexity(1e6, 1)) == math.inf


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "batches is empty"),
        ([torch.zeros(2, 3)], r"batches\[0\] holds no token numbers, but torch.float32 \[2, 3\]"),
        ([{"tokens": drawn(2, 3)}], "no token numbers, but keys tokens"),
        ([drawn(5)], r"no token numbers, but torch.int64 \[5\]"),
        ([drawn(3, 1)], "no token can be predicted"),
        ([torch.full((1, 3), -1)], "cannot run on this batch"),
    ],
)
def test_bad_batches_are_one_clear_error(batches, message):
    with pytest.raises(SparsemendError, match=message):
        perplexity(Bigram(), batches)


def test_outputs_that_do_not_score_the_tokens_are_refused():
    with pytest.raises(SparsemendError, match="no logits of a language model"):
        perplexity(nn.Sequential(Bigram(named=False), nn.Flatten()), [drawn(2, 3)])
    narrow = nn.Sequential(Bigram(named=False), nn.Linear(VOCABULARY, 3))
    with pytest.raises(SparsemendError, match="token numbers that the network does not score"):
        perplexity(narrow, [torch.tensor([[0, 6, 1]])])
