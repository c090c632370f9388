"""Every output is judged, by a judge that suits it."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from tests.evaluation.networks import (
    Heads,
    ModelOutput,
    Shaped,
    Tokens,
    damaged,
    token_batch,
)
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.evaluation import Criterion, Reference, Tally

X = torch.randn(30, 10, generator=torch.Generator().manual_seed(0))
SIX, ONE, MAP = torch.randn(4, 6), torch.randn(4, 1), torch.randn(4, 3, 5, 5)
TOKENS = torch.randn(4, 7, 6)

CHOSEN = [
    # What is called logits, and a lone [N, C] tensor, are class scores.
    (SIX, {"": "kl"}),
    ((SIX, None), {"0": "kl"}),
    ([SIX], {"0": "kl"}),
    ((None, SIX), {"1": "kl"}),
    ({"logits": TOKENS, "loss": SIX.mean()}, {"logits": "kl"}),
    ({"start_logits": SIX, "end_logits": SIX}, {"start_logits": "kl", "end_logits": "kl"}),
    ({"logits": (SIX, TOKENS)}, {"logits.0": "kl", "logits.1": "kl"}),
    (OrderedDict(out=MAP, aux=MAP), {"out": "kl", "aux": "kl"}),
    (SimpleNamespace(logits=SIX), {"logits": "kl"}),
    # One output has no classes.
    (ONE, {"": "relative"}),
    (ONE[:, 0], {"": "relative"}),
    ({"logits": ONE}, {"logits": "relative"}),
    (torch.randn(4, 1, 5, 5), {"": "relative"}),
    # Nothing says that these are classes.
    (TOKENS, {"": "relative"}),
    (MAP, {"": "relative"}),
    ({"boxes": SIX}, {"boxes": "relative"}),
    # Several.
    ((SIX, SIX), {"0": "kl", "1": "relative"}),
    ((SIX, ONE, (MAP, MAP)), {"0": "kl", "1": "relative", "2.0": "relative", "2.1": "relative"}),
    (Heads(SIX, SIX), {"scores": "relative", "embedding": "cosine"}),
    (
        {"last_hidden_state": TOKENS, "pooler_output": SIX},
        {"last_hidden_state": "relative", "pooler_output": "relative"},
    ),
    (
        {"token_embeddings": TOKENS, "sentence_embedding": SIX, "text_embeds": SIX},
        dict.fromkeys(("token_embeddings", "sentence_embedding", "text_embeds"), "cosine"),
    ),
    (
        ModelOutput(SIX, SIX.mean(), (TOKENS, TOKENS), SIX.long()),
        {"logits": "kl", "hidden.0": "relative", "hidden.1": "relative"},
    ),
    ({"pred_logits": TOKENS, "pred_boxes": TOKENS, "aux_outputs": [{"pred_logits": TOKENS}]},
     {"pred_logits": "kl", "pred_boxes": "relative", "aux_outputs.0.pred_logits": "kl"}),
]  # fmt: skip


def seats(jury):
    return {seat.path: seat.judge.name for seat in jury.seats}


@pytest.mark.parametrize(("output", "expected"), CHOSEN)
def test_which_judge_each_tensor_gets(output, expected):
    assert seats(Criterion().jury(output)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [("logits", {"logits": "kl"}), ("hidden", {"hidden.0": "relative", "hidden.1": "relative"}),
     ("hidden.1", {"hidden.1": "relative"})],
)  # fmt: skip
def test_a_part_of_the_output_can_be_named(path, expected):
    output = ModelOutput(SIX, hidden=(TOKENS, TOKENS))
    assert seats(Criterion(output=path).jury(output)) == expected


def test_places_are_named_by_numbers_and_keys_may_have_dots():
    # Alone it is judged as if it were the whole output.
    assert seats(Criterion(output=1).jury((SIX, SIX))) == {"1": "kl"}
    assert seats(Criterion("relative", "1").jury((SIX, SIX))) == {"1": "relative"}
    assert seats(Criterion(output="a.b").jury({"a.b": {"c": SIX}})) == {"a.b.c": "relative"}


DETECTED = [{"boxes": torch.randn(n, 4), "scores": torch.rand(n)} for n in (3, 0, 5)]


@pytest.mark.parametrize(
    ("criterion", "output", "text"),
    [
        (Criterion(), None, "nothing to judge: .*no floating-point tensor.*got 'NoneType'"),
        (Criterion(), {"ids": SIX.long(), "mask": SIX > 0, "t": "x", "e": []}, "nothing to judge"),
        (Criterion(), SIX.mean(), "nothing to judge"),
        (Criterion(), DETECTED, "list of mappings, as detectors .*pass a function as judge"),
        (Criterion("kl"), ONE, r"'kl' cannot judge the output: got \[4, 1\].*two or more classes"),
        (Criterion("kl"), {"a": SIX, "b": ONE[:, 0]}, r"'kl' cannot judge output 'b': got \[4\]"),
        (Criterion("cosine"), ONE, "'cosine' cannot judge the output.*embeddings of two or more"),
        (Criterion(output="b"), {"a": SIX}, "no such part: got 'b'; allowed: a"),
        (Criterion(output="a.b"), {"a": SIX}, "no such part: got 'a.b'; allowed: a"),
        (Criterion(output=2), (SIX, ONE), "no such part: got '2'; allowed: 0, 1"),
        (Criterion(lambda _, y: y), SIX, r"gives no loss per sample: got \[4, 6\]"),
        (Criterion(lambda _, y: 0.0), SIX, "gives no loss per sample: got 'float'"),  # noqa: ARG005
    ],
)
def test_what_cannot_be_judged(criterion, output, text):
    with pytest.raises(SparsemendError, match=text):
        criterion.jury(output)


@pytest.mark.parametrize("judge", ["kll", "KL", None, 3])
def test_unknown_judges(judge):
    with pytest.raises(SparsemendError, match=r"unknown judge.*'auto', 'kl'.*or a function"):
        Criterion(judge)


REGRESSIONS = {
    "[N, 1]": lambda y: y[:, :1],
    "[N]": lambda y: y[:, 0],
    "[N, 1, H, W]": lambda y: y.reshape(-1, 1, 2, 3),
}


@pytest.mark.parametrize("form", REGRESSIONS)
def test_one_output_is_judged_by_its_relative_error(form):
    dense = Shaped(REGRESSIONS[form])
    sparse = damaged(dense)
    found = sm.agreement(sparse, dense, list(X.split(7)))
    y, other = dense(X).detach().double(), sparse(X).detach().double()
    expected = (y - other).square().mean() / y.var(correction=0)
    assert found.loss == pytest.approx(float(expected))
    assert (found.judge, found.kl, found.top1, found.count) == ("relative", None, None, y.numel())
    assert found.recovery == 1 - found.loss
    assert str(found) == f"relative squared error {found.loss:.4f} over {y.numel()} samples"


def test_an_output_that_is_always_the_mean_has_relative_error_one():
    dense = Shaped()
    mean = dense(X).detach().mean(dim=0)
    constant = Shaped(lambda y: mean.expand_as(y))
    found = sm.agreement(constant, dense, X, judge="relative")
    assert found.loss == pytest.approx(1)
    assert found.recovery == pytest.approx(0, abs=1e-9)


def test_every_head_counts():
    dense = Shaped(lambda y: (y[:, :3], y[:, 3:]))
    sparse = damaged(dense)
    found = sm.agreement(sparse, dense, X)
    first = sm.agreement(sparse, dense, X, output=0).loss
    second = sm.agreement(sparse, dense, X, output=1, judge="relative").loss
    assert [one.loss for one in found.losses] == [first, second]
    assert found.loss == (first + second) / 2
    assert (found.judge, found.kl, found.top1) == ("kl+relative", None, None)
    assert str(found) == (
        f"loss {found.loss:.4f} over 60 samples, the mean of 0 KL {first:.4f}, 1 relative "
        f"squared error {second:.4f}"
    )
    classes = sm.agreement(sparse, dense, X, judge="kl")
    assert classes.kl == classes.loss
    assert classes.top1 == (
        sum(sm.agreement(sparse, dense, X, judge="kl", output=k).top1 for k in (0, 1)) / 2
    )
    blind = Shaped(lambda y: (y[:, :3], 0 * y[:, 3:]))
    assert sm.agreement(blind, dense, X).loss > 0.1


def test_a_function_judges_outputs_as_they_are():
    dense = Shaped(lambda y: [{"y": row} for row in y])
    sparse = damaged(dense)

    def largest(theirs, ours):
        pairs = zip(theirs, ours, strict=True)
        return torch.stack([(a["y"] - b["y"]).abs().max() for a, b in pairs])

    found = sm.agreement(sparse, dense, list(X.split(8)), judge=largest)
    expected = largest(dense(X), sparse(X)).mean().item()
    assert found.loss == pytest.approx(expected)
    assert (found.judge, found.count, found.recovery) == ("largest", 30, None)
    assert str(found) == f"largest {found.loss:.4f} over 30 samples"
    named = Shaped(lambda y: (y, y[:, :2]))
    first = sm.agreement(damaged(named), named, X, output=1,
                         judge=lambda a, b: (a - b).square().sum(dim=1))  # fmt: skip
    assert first.losses[0].output == "1"


@pytest.mark.parametrize("form", ["mapping", "pair"])
def test_padding_does_not_count(form):
    dense = Tokens()
    sparse = damaged(dense)

    def measured(batch, **options):
        given = batch if form == "mapping" else ((), batch)
        found = sm.agreement(sparse, dense, [given], **options)
        assert found == Reference(dense, [given], Criterion(**options).jury(
            dense(**batch), given)).agreement(sparse)  # fmt: skip
        return found

    one, other = measured(token_batch(padding=19)), measured(token_batch(padding=0))
    assert [x.judge for x in one.losses] == ["kl", "cosine"]
    assert one == other
    assert one.count == 2 * (3 + 4 + 5 + 6)
    # The same tokens without any padding.
    whole = token_batch()
    rows = [{k: v[i : i + 1, : 3 + i] for k, v in whole.items()} for i in range(4)]
    apart = sm.agreement(sparse, dense, rows)
    assert apart.loss == pytest.approx(one.loss)
    assert apart.count == one.count
    assert measured(token_batch(), output="logits").kl == pytest.approx(one.losses[0].loss)


def test_an_attention_mask_does_not_touch_outputs_without_tokens():
    class Sentences(Tokens):
        def forward(self, input_ids, attention_mask):
            return super().forward(input_ids, attention_mask)["logits"].mean(dim=1)

    dense = Sentences()
    assert sm.agreement(damaged(dense), dense, [token_batch()]).count == 4


@torch.no_grad()
def test_the_loss_is_the_sum_of_losses_times_their_factors():
    dense = Shaped(lambda y: {"logits": y, "scale": y.flatten(), "embedding": y.reshape(-1, 2)})
    sparse = damaged(dense)
    jury = Criterion().jury(dense(X))
    tally, sums = Tally(jury), torch.zeros(3, dtype=torch.float64)
    for batch in X.split(11):
        theirs, ours = (jury.read(model(batch), batch) for model in (dense, sparse))
        tally.add(theirs, ours)
        sums += torch.stack([losses.sum() for losses in jury.losses(theirs, ours)])
    loss = float((sums * torch.tensor(tally.factors(), dtype=torch.float64)).sum()) / len(X)
    assert loss == pytest.approx(tally.result().loss)


def test_outputs_that_change_their_form():
    dense = Shaped(lambda y: {"a": y, "b": y})
    lost, other = Shaped(lambda y: {"a": y}), Shaped(lambda y: {"a": y, "b": None})
    with pytest.raises(SparsemendError, match="no such part: got 'b'; allowed: a"):
        sm.agreement(lost, dense, X)
    with pytest.raises(SparsemendError, match="output 'b' is no tensor on every batch"):
        sm.agreement(other, dense, X)
    with pytest.raises(SparsemendError, match=r"differ in shape \(output 'b'\)"):
        sm.agreement(Shaped(lambda y: {"a": y, "b": y[:, 1:]}), dense, X)


def test_segmentation_as_torchvision_returns_it():
    class Segments(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return OrderedDict(out=self.conv(x))

    dense, images = Segments(), torch.randn(5, 3, 6, 6)
    found = sm.agreement(damaged(dense), dense, images)
    assert (found.judge, found.count) == ("kl", 5 * 36)
    assert str(found).endswith("of 180, output 'out'")
