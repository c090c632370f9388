"""Networks whose outputs are not one tensor of class scores, through the whole job."""

import copy
import warnings

import pytest
import torch
from tests.evaluation.networks import Shaped, Tokens, damaged, token_batch
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError, SparsemendWarning

X = torch.randn(96, 10, generator=torch.Generator().manual_seed(0))
BATCHES = list(X.split(16))

FORMS = {
    "regressor": (lambda y: y[:, :1], "relative"),
    "binary logit": (lambda y: y[:, 0], "relative"),
    "one-channel map": (lambda y: y.reshape(-1, 1, 2, 3), "relative"),
    "two heads": (lambda y: (y[:, :4], y[:, 4:]), "kl+relative"),
    "embedding": (lambda y: {"sentence_embedding": y}, "cosine"),
    "segmentation": (lambda y: {"out": y.reshape(-1, 3, 2, 1)}, "kl"),
    "nested": (lambda y: {"logits": y, "states": [(y[:, :2],)], "step": None}, "kl+relative"),
}
every_form = pytest.mark.parametrize("form", FORMS)


def compress(model, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsemendWarning)  # few inputs
        return sm.compress(model, BATCHES, *args, progress=False, **options)


@every_form
def test_the_result_says_what_was_judged(form):
    pack, judge = FORMS[form]
    model = Shaped(pack)
    result = compress(model, 0.8, "erk", repair="none")
    assert result.agreement == sm.agreement(result.model, model, BATCHES)
    assert result.agreement.judge == judge
    assert result.agreement.loss > 1e-3
    assert str(result.agreement) in str(result)
    assert (result.agreement.top1 is None) == (judge != "kl")


@every_form
def test_best_and_auto_choose_by_it(form):
    pack, _ = FORMS[form]
    model = Shaped(pack)
    best = compress(model, 0.6, "erk", "magnitude")
    assert len(set(best.tried.values())) > 1
    assert best.agreement.loss == best.tried[best.repair] == min(best.tried.values())
    assert f"tried ({best.agreement.label}): " in str(best)
    # Class scores would be judged by their direction.
    asked = {"judge": "kl"} if FORMS[form][1] == "kl" else {}
    searched = compress(model, 0.6, repair="variance", budget=24, **asked)
    losses = [trial.kl for trial in searched.search.trials]
    if "+" not in FORMS[form][1]:
        assert searched.agreement.loss == searched.search.kl
    assert searched.search.kl == min(losses)
    assert len(set(losses)) > 3
    label = searched.search.label
    assert f": {label} {min(losses):.4f} on held-out" in str(searched.search)


def test_slopes_go_downhill_for_every_judge(monkeypatch):
    from sparsemend.search import objective

    found = []
    slopes = objective.density_slopes
    monkeypatch.setattr(
        objective, "density_slopes", lambda *a, **k: found.append(slopes(*a, **k)) or found[-1]
    )
    for form in FORMS:
        compress(Shaped(FORMS[form][0]), 0.6, repair="variance", budget=24)
    assert len(found) >= len(FORMS)
    assert all(values is not None and (values != 0).any() for values in found)


REFUSED = {
    "no tensors": (lambda y: {"ids": y.long(), "text": "a"}, {}, "nothing to judge"),
    "a detector": (lambda y: [{"boxes": y[:2]}, {"boxes": y[:3]}], {}, "as detectors"),
    "kl of one output": (lambda y: y[:, :1], {"judge": "kl"}, "cannot judge the output"),
    "no such output": (lambda y: {"a": y}, {"output": "b"}, "no such part: got 'b'"),
    "an unknown judge": (lambda y: y, {"judge": "mse"}, "unknown judge: got 'mse'"),
    "a function of no losses": (lambda y: y, {"judge": torch.sub}, "no loss per sample"),
    "NaN": (lambda y: y * torch.nan, {}, "the outputs of the network are not finite"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("verb", ["compress", "repair", "sweep"])
def test_what_cannot_be_judged_is_refused_before_any_work(case, verb, tmp_path):
    pack, options, text = REFUSED[case]
    model = Shaped(pack)
    pruned = copy.deepcopy(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    store = tmp_path / "s.sqlite"
    verbs = {
        "compress": lambda: sm.compress(model, BATCHES, 0.5, "erk", inplace=True, **options),
        "repair": lambda: sm.repair(pruned, model, BATCHES, "best", **options),
        "sweep": lambda: sm.sweep(model, BATCHES, 0.5, store=store, **options),
    }
    with pytest.raises(SparsemendError, match=text):
        verbs[verb]()
    # Once more to find where NaN began.
    assert model.calls <= (2 if case == "NaN" else 1)
    assert not list(tmp_path.iterdir())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "score",
    [lambda a, b: torch.cosine_similarity(a, b), lambda a, b: -(a - b).square().mean(dim=1)],
)
def test_scores_are_no_losses(score):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3)).eval()
    with pytest.raises(SparsemendError, match=r"gives a score, no loss.*return 1 - score"):
        sm.compress(model, torch.randn(9, 4), 0.5, "erk", repair="none", judge=score)


def test_a_detector_can_have_a_function():
    def boxes(dense, sparse):
        return torch.stack([(a["boxes"] - b["boxes"]).square().mean() for a, b in zip(
            dense, sparse, strict=True)])  # fmt: skip

    model = Shaped(lambda y: [{"boxes": row} for row in y])
    result = compress(model, 0.6, "erk", judge=boxes)
    assert result.agreement.judge == "boxes"
    assert result.agreement.loss == min(result.tried.values()) > 0


def test_repairs_that_nothing_judges_run_on_any_output():
    model = Shaped(lambda y: [{"boxes": y}])
    pruned = sm.prune(model, sm.allocate(model, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsemendWarning)
        repaired = sm.repair(pruned, model, BATCHES, "reconstruct")
    wanted, found, before = (net(X)[0]["boxes"] for net in (model, repaired, pruned))
    assert (found - wanted).square().sum() < (before - wanted).square().sum()


def test_class_probabilities_are_fitted_where_outputs_are_judged_as_such():
    """A least-squares fit is nearer in squares, one of the probabilities in KL."""
    model = Shaped()
    found = {
        judge: compress(model, 0.6, "erk", "magnitude", "reconstruct", judge=judge).model
        for judge in ("auto", "kl", "relative")
    }
    auto, kl, relative = (network(X) for network in found.values())
    assert torch.equal(auto, kl)
    assert not torch.equal(kl, relative)
    for judge in ("kl", "relative"):
        losses = {n: sm.agreement(found[n], model, BATCHES, judge=judge).loss for n in found}
        assert losses[judge] == min(losses.values())


def test_language_models_with_padding():
    dense = Tokens()
    batches = [token_batch(seed) for seed in range(4)]
    result = sm.compress(dense, batches, 0.5, "erk", repair="none", heldout=batches[2:])
    assert result.agreement.judge == "kl+cosine"
    assert result.agreement.count == 2 * 2 * (3 + 4 + 5 + 6)
    named = sm.compress(
        dense, batches, 0.5, "erk", repair="none", heldout=batches[2:], output="logits"
    )
    assert named.agreement.kl == named.agreement.loss == result.agreement.losses[0].loss
    assert str(named.agreement).endswith("of 36, output 'logits'")


def test_plain_tensors_of_tokens_are_class_scores_where_the_user_says_so():
    model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 5))
    tokens = [torch.randn(4, 7, 10) for _ in range(3)]
    sparse = damaged(model)
    assert sm.agreement(sparse, model, tokens).judge == "relative"
    assert sm.agreement(sparse, model, tokens, judge="kl").kl > 0
