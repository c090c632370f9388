"""What a distillation promises: exact zeros, nothing else touched, never a worse judge."""

import copy
import warnings

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.repairs import DistillSettings
from sparsemend.repairs.distillation.loop import distill
from sparsemend.repairs.repair import Support, Terms
from sparsemend.session import Session

from ..networks import conv_bn, images, perceptron, prune_half, same_state


class Block(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.norm(self.first(x)))))


class Words(nn.Module):
    """Token ids to class scores of every sequence, as a dictionary."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.hidden = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.out = nn.Linear(16, 4)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(2)
        hidden = torch.relu(self.norm(self.hidden(self.embedding(input_ids)))) * mask
        return {"logits": self.out(hidden.sum(1) / mask.sum(1))}


def residual():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1),
        Block(6),
        Block(6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).eval()


def token_batches(count=6):
    source = torch.Generator().manual_seed(0)
    lengths = [5, 3, 7, 4, 5, 6][:count]
    batches = []
    for length in lengths:
        mask = torch.ones(4, length, dtype=torch.long)
        mask[0, length // 2 :] = 0
        ids = torch.randint(0, 20, (4, length), generator=source)
        batches.append({"input_ids": ids, "attention_mask": mask})
    return batches


CASES = {
    "convolutions": lambda: (conv_bn(), list(images(48).split(16))),
    "shortcuts": lambda: (residual(), list(images(48).split(16))),
    "vectors": lambda: (perceptron(sizes=(100, 24, 5)), list(images(48).flatten(1).split(16))),
    "tokens": lambda: (Words().eval(), token_batches()),
    "half": lambda: (perceptron(sizes=(100, 24, 5)).bfloat16(), [images(48).flatten(1)]),
}


def distilled(case, steps=12, **changes):
    """The dense network, a pruned copy, the distilled copy, and the session."""
    torch.manual_seed(1)
    dense, batches = CASES[case]()
    pruned = prune_half(dense, 0.7)
    session = Session.open(dense, batches, judging=True)
    masks = {x.name: pruned.get_parameter(f"{x.name}.weight").detach() != 0 for x in session.layers}
    found = copy.deepcopy(pruned)
    distill(session, found, masks, DistillSettings(steps=steps, **changes))
    return dense, pruned, found, session, masks


@pytest.mark.parametrize("case", CASES)
def test_zeros_stay_exact_and_the_held_out_judge_falls(case):
    _, pruned, found, session, masks = distilled(case)
    before, after = (session.reference.agreement(n).loss for n in (pruned, found))
    assert after < before
    for name, mask in masks.items():
        removed = found.get_parameter(f"{name}.weight")[~mask]
        assert (removed == 0).all()
        assert not torch.signbit(removed).any()


def test_only_kept_weights_biases_and_affine_parameters_change():
    for case in ("convolutions", "tokens"):
        _, pruned, found, session, _ = distilled(case)
        matrices = {f"{layer.name}.weight" for layer in session.layers}
        parameters = dict(pruned.named_parameters())
        for name, value in found.state_dict().items():
            same = torch.equal(value, pruned.state_dict()[name])
            trained = name in matrices or (name in parameters and value.dim() < 2)
            assert same != trained, name  # running statistics, embeddings stay


def test_layers_that_are_not_pruned_stay_as_they_are():
    dense, batches = CASES["vectors"]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sm.SparsemendWarning)  # coverage
        result = sm.compress(
            dense, batches, 0.7, "global", repair="variance+distill", exclude="2", distill=8
        )
    for name in ("2.weight", "2.bias"):
        assert torch.equal(result.model.get_parameter(name), dense.get_parameter(name))
    assert not torch.equal(result.model.get_parameter("0.bias"), dense.get_parameter("0.bias"))


def test_the_same_seed_gives_the_same_numbers():
    assert same_state(distilled("shortcuts")[2], distilled("shortcuts")[2])
    assert not same_state(distilled("shortcuts")[2], distilled("shortcuts", seed=1)[2])


@pytest.mark.parametrize("rate", [1e3, float("inf")])
def test_a_run_that_goes_astray_leaves_the_network_as_it_was(rate):
    _, pruned, found, _, _ = distilled("convolutions", rate=rate, judgements=3)
    assert same_state(pruned, found)


def test_an_interrupt_keeps_the_best_so_far(monkeypatch):
    from sparsemend.repairs.distillation import loop

    steps, shape = [], loop._shape

    def interrupted(done, step):
        steps.append(step)
        if step == 9:
            raise KeyboardInterrupt
        return shape(done, step)

    monkeypatch.setattr(loop, "_shape", interrupted)
    _, pruned, found, session, _ = distilled("vectors", steps=12, judgements=12)
    assert steps[-1] == 9
    before, after = (session.reference.agreement(n).loss for n in (pruned, found))
    assert after < before


def test_a_time_ends_it_too():
    _, pruned, found, session, _ = distilled("vectors", steps=float("inf"), seconds=0.3)
    before, after = (session.reference.agreement(n).loss for n in (pruned, found))
    assert after <= before


def test_small_pieces_of_a_batch_give_the_gradients_of_the_whole(monkeypatch):
    from sparsemend.repairs.distillation import loop

    whole = distilled("vectors", steps=3)[2]
    monkeypatch.setattr(loop, "_MOST_OUTPUTS", 20)
    for ours, theirs in zip(
        distilled("vectors", steps=3)[2].parameters(), whole.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("judge", ["kl", "relative", "cosine"])
def test_every_judge_is_a_loss(judge):
    dense, batches = CASES["vectors"]()
    pruned = prune_half(dense, 0.7)
    found = sm.repair(pruned, dense, batches, "distill", judge=judge, distill=12)
    after, before = (sm.agreement(n, dense, batches, judge=judge).loss for n in (found, pruned))
    assert after < before


def test_a_judge_without_gradients_is_refused():
    dense, batches = CASES["vectors"]()

    def judge(wanted, found):
        return (wanted - found).detach().square().mean(dim=1)

    with pytest.raises(sm.SparsemendError, match="no gradient of the loss reaches the weights"):
        sm.repair(prune_half(dense), dense, batches, "distill", judge=judge, distill=2)


class InPlace(nn.Sequential):
    def forward(self, x):
        return super().forward(x).exp().add_(1)


@pytest.mark.filterwarnings("ignore:reconstruction leans")
def test_a_network_that_cannot_be_differentiated_is_refused_or_left_untrained():
    dense, batches = CASES["vectors"]()
    dense = InPlace(dense)
    with pytest.raises(sm.SparsemendError, match=r"no gradient of the loss.*inplace operation"):
        sm.repair(prune_half(dense), dense, batches, "distill", distill=2)
    assert "distill" not in sm.compress(dense, batches, 0.5, budget="1s").repair


@pytest.mark.filterwarnings("ignore:reconstruction leans")
def test_best_trains_its_best_ending_where_that_is_asked_for():
    dense, batches = CASES["vectors"]()
    plain = sm.compress(dense, batches, 0.9, "global")
    assert not any("distill" in name for name in plain.tried)
    trained = sm.compress(dense, batches, 0.9, "global", distill=200)
    assert trained.tried == plain.tried | {f"{plain.repair}+distill": trained.agreement.loss}
    assert trained.repair == f"{plain.repair}+distill"
    assert trained.agreement.loss < plain.agreement.loss


def test_a_formula_runs_its_parts_in_order():
    dense, batches = CASES["convolutions"]()
    pruned = prune_half(dense, 0.7)
    session = Session.open(dense, batches, judging=True)
    masks = {x.name: pruned.get_parameter(f"{x.name}.weight").detach() != 0 for x in session.layers}
    support = Support({name: int(mask.sum()) for name, mask in masks.items()}, masks)
    by_hand = copy.deepcopy(pruned)
    from sparsemend.repairs import parse_repair

    parse_repair("batchnorm").run(session, by_hand, Terms(support))
    distill(session, by_hand, masks, DistillSettings(steps=4))
    together = sm.repair(pruned, dense, batches, "batchnorm+distill", distill=4)
    assert same_state(by_hand, together)


def test_it_comes_close_to_the_least_squares_that_one_layer_has():
    torch.manual_seed(0)
    x = torch.randn(256, 8) @ torch.randn(8, 8)  # correlated, so that what is kept has to move
    dense = nn.Sequential(nn.Linear(8, 4)).eval()
    pruned = prune_half(dense)
    mask = pruned[0].weight.detach() != 0
    session = Session(dense, [x], criterion=sm.evaluation.Criterion("relative"))
    found = copy.deepcopy(pruned)
    distill(session, found, {"0": mask}, DistillSettings(steps=100, rate=3e-2))
    columns, wanted = torch.cat([x, torch.ones(len(x), 1)], dim=1), dense(x).detach()
    best = torch.zeros(4, 9)
    for row, kept in enumerate(mask):
        held = torch.cat([kept, torch.tensor([True])])
        best[row, held] = torch.linalg.lstsq(columns[:, held], wanted[:, row]).solution
    least = (columns @ best.T - wanted).square().sum()
    start, end = ((n(x) - wanted).detach().square().sum() for n in (pruned, found))
    assert least <= end < least + 0.05 * (start - least)


class Residues(nn.Module):
    """Token ids to an embedding, through a block with a shortcut that sees every position alone."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.block = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, input_ids, attention_mask):
        x = self.embedding(input_ids)
        mask = attention_mask.unsqueeze(2)
        return {"embeddings": ((x + self.block(x)) * mask).sum(1) / mask.sum(1)}


def test_padding_does_not_count():
    torch.manual_seed(0)
    dense, batches = Residues().eval(), token_batches()
    pruned = prune_half(dense)
    other = [
        {**b, "input_ids": torch.where(b["attention_mask"] != 0, b["input_ids"], 7)}
        for b in batches
    ]
    one, two = (sm.repair(pruned, dense, b, "distill", distill=6) for b in (batches, other))
    assert not same_state(pruned, one)
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_rate_does_not_vanish_in_few_steps():
    from sparsemend.repairs.distillation.loop import _rate

    for values in (100, 27_000, 2_000_000, 10**9):
        rates = [_rate(values, steps) for steps in (1, 30, 60, 200, 400, 1000)]
        assert rates == sorted(rates)
        assert rates[-1] == rates[-2]
        assert rates[0] == min(rates[-1], rates[0])
        assert rates[0] >= 2e-4
