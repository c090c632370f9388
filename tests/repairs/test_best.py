"""Repair ``best``: the closest ending wins, judged on inputs that no repair saw."""

import copy
import functools
import warnings

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.evaluation import Reference
from sparsemend.execution.augmentation import augmented, mirrored
from sparsemend.finite import NotFiniteError
from sparsemend.layers import discover
from sparsemend.repairs import Support, Terms, get_repair
from sparsemend.session import Session, hold_out
from sparsemend.verbs import running

pytestmark = pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge")


class Log(list):
    """One for all replicas of a network, which have plain lists of their own."""


class Recorder(nn.Module):
    """A small network that notes which inputs it is called with, and how often."""

    def __init__(self, norm=True):
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=not norm)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.conv2, self.head = nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        self.log = Log()

    def __deepcopy__(self, memo):
        # Copies write into the same log.
        twin = type(self)(isinstance(self.norm, nn.BatchNorm2d))
        twin.load_state_dict(self.state_dict())
        twin.log = self.log
        return twin.train(self.training)

    def forward(self, x):
        self.log.append(float(x[0, 0, 0, 0]))
        x = torch.relu(self.norm(self.conv1(x)))
        return self.head(torch.relu(self.conv2(x)).mean(dim=(2, 3)))


def marked_batches(count=6, size=20, seed=0):
    """Batches that their first value names, mirrored or not."""
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(size, 3, 6, 6, generator=generator) for _ in range(count)]
    for index, batch in enumerate(batches):
        batch[:, 0, 0, [0, -1]] = index
    return batches


def same_values(one, other):
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(("count", "judges"), [(2, 1), (4, 1), (5, 1), (9, 1), (10, 2), (23, 4)])
def test_the_last_fifth_is_held_out(count, judges):
    batches = list(range(count))
    fit, unseen = hold_out(batches)
    assert len(unseen) == judges
    assert fit + unseen == batches


@pytest.mark.parametrize(("size", "judges"), [(2, 1), (4, 1), (9, 1), (10, 2), (80, 16)])
@pytest.mark.parametrize("pack", [lambda x: x, lambda x: {"x": x, "flag": True}, lambda x: (x, 3)])
def test_a_lone_batch_is_cut(size, judges, pack):
    x = torch.arange(3.0 * size).reshape(size, 3)
    fit, unseen = hold_out([pack(x)])
    assert len(fit) == len(unseen) == 1
    for part, expected in ((fit[0], x[: size - judges]), (unseen[0], x[size - judges :])):
        torch.testing.assert_close(part, pack(expected))


def test_a_single_input_serves_as_both():
    batches = [torch.zeros(1, 3)]
    fit, unseen = hold_out(batches)
    assert fit is unseen is batches
    dense = Recorder().eval()
    result = sm.compress(dense, marked_batches(1, size=1), 0.6, "global")
    assert not result.heldout
    assert result.agreement.count == 1
    assert "(calibration inputs)" in str(result)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_the_winner_is_never_worse_than_any_ending(free, norm):
    dense, batches = Recorder(norm).eval(), marked_batches()
    fit, unseen = hold_out(batches)
    layers = discover(dense, batches[0])
    counts = sm.allocate(dense, 2 / 3, "uniform", layers=layers)
    pruned = copy.deepcopy(dense) if free else sm.prune(dense, counts)
    masks = None if free else sm.find_masks(pruned, layers)
    before = copy.deepcopy(dense)
    model = copy.deepcopy(pruned)
    best = get_repair("best").run(Session(dense, fit, unseen), model, Terms(Support(counts, masks)))
    same_values(before, dense)
    endings = {"reconstruct", *(["reconstruct+batchnorm"] if norm else [])}
    endings |= set() if free else {"variance", *(["batchnorm"] if norm else [])}
    closer = min("reconstruct", "reconstruct-mirrored", key=best.tried.__getitem__)
    others = {"reconstruct-mirrored", *([f"{closer}-again"] if free else [])}
    assert set(best.tried) == endings | others
    # Both the winner's and the others' closeness, recomputed.
    found = sm.agreement(model, dense, unseen)
    assert found.kl == best.tried[best.repair] == min(best.tried.values())
    for name in endings:
        if free:
            alone = sm.compress(dense, fit, 2 / 3, "uniform", repair=name).model
        else:
            alone = sm.repair(pruned, dense, fit, name)
        assert sm.agreement(alone, dense, unseen).kl == best.tried[name]
    for name, mask in best.masks.items():
        assert int(mask.sum()) == counts[name]
        assert not model.get_submodule(name).weight[~mask].any()


def test_every_ending_of_a_trained_network_recomputed(digits):
    heldout = digits.heldout
    result = sm.compress(digits.model, digits.calibration, 0.85, "global", heldout=heldout)
    closer = min("reconstruct", "reconstruct-mirrored", key=result.tried.__getitem__)
    expected = {"reconstruct", "reconstruct+batchnorm", "reconstruct-mirrored", f"{closer}-again"}
    assert set(result.tried) == expected
    assert result.agreement.kl == min(result.tried.values())
    for repair in ("reconstruct", "reconstruct+batchnorm"):
        alone = sm.compress(
            digits.model, digits.calibration, 0.85, "global", repair=repair, heldout=heldout
        )
        assert alone.agreement.kl == result.tried[repair] >= result.agreement.kl
    text = str(result).splitlines()
    assert text[1] == f"rule global, mask gradual, repair {result.repair} (sequential)"
    assert text[3].startswith("tried (KL): reconstruct ")


def test_mirror_images_are_those_of_the_calibration_inputs():
    dense, batches = Recorder().eval(), marked_batches()
    heldout = batches[4:]
    result = sm.compress(dense, batches[:4], 0.7, "global", heldout=heldout)
    alone = sm.compress(
        dense, mirrored(batches[:4]), 0.7, "global", repair="reconstruct", heldout=heldout
    )
    assert alone.agreement.kl == result.tried["reconstruct-mirrored"]


def test_repairs_from_copies_are_those_of_inputs_with_copies():
    torch.manual_seed(0)
    dense, batches = Recorder().eval(), marked_batches()
    options = {"heldout": batches[2:], "progress": False}
    losses = [
        sm.compress(dense, inputs, 0.7, "global", repair=repair, **options).agreement.kl
        for inputs, repair in (
            (batches[:2], "reconstruct-augmented"),
            (augmented(batches[:2], 3), "reconstruct"),
        )
    ]
    assert losses[0] == losses[1]
    with pytest.raises(SparsemendError, match="repair 'reconstruct-augmented' needs images"):
        sm.repair(nn.Linear(4, 3), nn.Linear(4, 3), torch.randn(8, 4), "reconstruct-augmented")


def test_inputs_that_are_no_images_are_not_mirrored():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 4))
    result = sm.compress(dense, [torch.randn(30, 8) for _ in range(4)], 0.5, "global")
    assert set(result.tried) == {"reconstruct", "reconstruct-again"}


def seen_while(monkeypatch, dense, job):
    """Batches that the networks were called with while repairing, and while judging."""
    phases = {"repair": set(), "judge": set()}

    def judging(inner):
        def judged(*args):
            phases["repair"] |= set(dense.log)
            dense.log.clear()
            found = inner(*args)
            phases["judge"] |= set(dense.log)
            dense.log.clear()
            return found

        return judged

    for name in ("__init__", "agreement"):
        monkeypatch.setattr(Reference, name, judging(getattr(Reference, name)))
    monkeypatch.setattr(running, "signal_ends", judging(running.signal_ends))
    dense.log.clear()
    job()
    phases["repair"] |= set(dense.log)
    return phases


@pytest.mark.parametrize("mask", ["gradual", "magnitude", "activation"])
def test_compress_does_not_repair_with_the_inputs_that_judge(monkeypatch, mask):
    dense, batches = Recorder().eval(), marked_batches(6)

    def job():
        result = sm.compress(dense, batches, 0.6, "global", mask=mask)
        assert result.heldout
        assert result.agreement.count == 20

    phases = seen_while(monkeypatch, dense, job)
    assert phases == {"repair": {0.0, 1.0, 2.0, 3.0, 4.0}, "judge": {5.0}}


def test_a_rule_that_diagnoses_does_not_see_them_either(monkeypatch):
    dense, batches = Recorder().eval(), marked_batches(6)
    phases = seen_while(monkeypatch, dense, lambda: sm.compress(dense, batches, 0.6, "rr"))
    assert phases == {"repair": {0.0, 1.0, 2.0, 3.0, 4.0}, "judge": {5.0}}


def test_given_heldout_inputs_judge_alone(monkeypatch):
    dense, batches = Recorder().eval(), marked_batches(6)
    phases = seen_while(
        monkeypatch,
        dense,
        lambda: sm.compress(dense, batches[:4], 0.6, "global", heldout=batches[4:]),
    )
    assert phases == {"repair": {0.0, 1.0, 2.0, 3.0}, "judge": {4.0, 5.0}}


def test_repair_does_not_use_them(monkeypatch):
    dense, batches = Recorder().eval(), marked_batches(6)
    pruned = sm.prune(dense, {"conv1": 60, "conv2": 100, "head": 12})
    phases = seen_while(monkeypatch, dense, lambda: sm.repair(pruned, dense, batches, "best"))
    # Layers are discovered on the first batch.
    assert phases == {"repair": {0.0, 1.0, 2.0, 3.0, 4.0}, "judge": {5.0}}


def test_one_batch_is_cut(monkeypatch):
    dense, (batch,) = Recorder().eval(), marked_batches(1, size=80)
    batch[64:, 0, 0, [0, -1]] = 1  # of the held-out inputs, the last fifth
    phases = seen_while(monkeypatch, dense, lambda: sm.compress(dense, [batch], 0.6, "global"))
    assert phases == {"repair": {0.0}, "judge": {1.0}}
    result = sm.compress(dense, [batch], 0.6, "global")
    assert result.heldout
    assert result.agreement.count == 16
    apart = sm.compress(dense, [batch[:64]], 0.6, "global", heldout=[batch[64:]])
    assert apart.tried == result.tried


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("mask", ["gradual", "magnitude"])
def test_in_place_gives_the_same(norm, mask):
    dense, batches = Recorder(norm).eval(), marked_batches()
    expected = sm.compress(dense, batches, 0.7, "global", mask=mask)
    model = copy.deepcopy(dense)
    result = sm.compress(model, batches, 0.7, "global", mask=mask, inplace=True)
    assert result.model is model
    same_values(model, expected.model)
    assert (result.repair, result.tried) == (expected.repair, expected.tried)
    assert result.agreement == expected.agreement
    assert all(torch.equal(result.masks[name], kept) for name, kept in expected.masks.items())


def test_in_place_adds_the_biases_that_the_winner_has():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(8, 9, bias=False), nn.ReLU(), nn.Linear(9, 4, bias=False))
    batches = [torch.randn(30, 8) for _ in range(4)]
    expected = sm.compress(dense, batches, 0.5, "global", new_biases=True)
    assert expected.added_biases == ("0", "2")
    model = copy.deepcopy(dense)
    sm.compress(model, batches, 0.5, "global", new_biases=True, inplace=True)
    same_values(model, expected.model)
    assert [name for name, _ in model.named_parameters()] == [
        name for name, _ in expected.model.named_parameters()
    ]


def test_repair_best_on_a_given_network(digits):
    dense, batches = digits.model, digits.calibration
    allocation = sm.allocate(dense, 0.85, layers=discover(dense, batches[0]))
    pruned = sm.prune(dense, allocation)
    before = copy.deepcopy(pruned)
    repaired = sm.repair(pruned, dense, batches, "best")
    same_values(pruned, before)
    given, found = sm.find_masks(pruned), sm.find_masks(repaired)
    assert not any((found[name] & ~mask).any() for name, mask in given.items())
    fit, unseen = hold_out(list(batches))
    names = ("reconstruct", "reconstruct+batchnorm", "variance", "batchnorm")
    endings = [sm.repair(pruned, dense, fit, name) for name in names]
    endings.append(sm.repair(pruned, dense, mirrored(fit), "reconstruct"))
    closest = min(sm.agreement(ending, dense, unseen).kl for ending in endings)
    assert sm.agreement(repaired, dense, unseen).kl == closest
    assert sm.repair(pruned, dense, batches, "best", inplace=True) is pruned
    same_values(pruned, repaired)


def test_results_repeat():
    dense, batches = Recorder().eval(), marked_batches()
    first, second = (sm.compress(dense, batches, 0.7, "global") for _ in range(2))
    same_values(first.model, second.model)
    assert first.tried == second.tried


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"mask": "gradual", "repair": "variance"},
            r"^mask 'gradual' is chosen jointly with the reconstructed values, but repair is: got "
            r"'variance'; allowed: 'reconstruct', 'reconstruct\+batchnorm' or 'best'; choose one "
            r"of these, or mask 'magnitude'$",
        ),
        ({"mask": "gradual", "repair": "batchnorm"}, r"but repair is: got 'batchnorm'; allowed: "),
        ({"repair": "best", "scope": "one-shot"}, r"^repair 'best' works layer by layer: got "),
        ({"repair": "best+batchnorm"}, r"^unknown repair: got 'best\+batchnorm'; allowed: best, "),
    ],
)
def test_refusals(options, text):
    dense, batches = Recorder().eval(), marked_batches(1)
    with pytest.raises(SparsemendError, match=text):
        sm.compress(dense, batches, 0.5, "global", **options)
    assert not dense.log


def test_a_repair_that_reconstructs_chooses_the_masks_by_default():
    dense, batches = Recorder().eval(), marked_batches()
    repairs = ("reconstruct", "reconstruct+batchnorm", "best", "variance", "batchnorm")
    masks = {
        repair: sm.compress(dense, batches, 0.5, "global", repair=repair).mask for repair in repairs
    }
    assert list(masks.values()) == ["gradual"] * 3 + ["magnitude"] * 2


def test_a_repair_whose_numbers_do_not_stay_finite_is_left_out(monkeypatch):
    def failing(*_, **__):
        raise NotFiniteError("numbers are not finite")

    torch.manual_seed(0)
    model, x = Recorder(), torch.randn(40, 3, 8, 8)
    run = functools.partial(sm.compress, model, x, 0.5, "erk", repair="best")
    monkeypatch.setattr("sparsemend.repairs.reconstruct.reconstruct", failing)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run(mask="magnitude")
    assert "repair 'reconstruct' was left out: numbers are not finite" in map(
        str, (warning.message for warning in caught)
    )
    assert result.tried
    assert not any("reconstruct" in name for name in result.tried)
    # Where the masks are free, there is nothing else.
    with pytest.raises(SparsemendError, match=r"^numbers are not finite$"):
        run()
