"""The whole job in one call: exact masks, an untouched model, the same result twice, errors."""

import copy
import functools
import importlib
import json
import math

import pytest
import torch
from tests.faults.networks import edited, small_network
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.allocation import kept_total
from sparsemend.execution.augmentation import mirrored
from sparsemend.reports import Compression

compress = functools.partial(sm.compress, repair="variance")
RULES = sm.rule_names()
REPAIRS = ("none", "variance", "batchnorm", "shrinkage+batchnorm-ema", "affine")


def state_of(model):
    """Everything that must not change: values, identity of parameters, flags and hooks."""
    values = {key: value.clone() for key, value in model.state_dict().items()}
    identity = [id(parameter) for parameter in model.parameters()]
    flags = [module.training for module in model.modules()]
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for m in model.modules()
    ]
    return values, identity, flags, hooks


def same(one, other):
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)
    assert one[1:] == other[1:]


def same_values(one, other):
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def check_masks(result, dense):
    """Exact counts, zeros where masked, and kept weights that are still there."""
    layers = sm.discover(dense)
    assert result.allocation.total == layers.total
    assert list(result.masks) == list(result.allocation)
    assert set(result.allocation) == set(layers.names)
    for name, mask in result.masks.items():
        weight, before = (m.get_submodule(name).weight for m in (result.model, dense))
        assert mask.dtype == torch.bool
        assert mask.shape == weight.shape
        assert int(mask.sum()) == result.allocation[name]
        assert not weight[~mask].any()
        assert torch.equal(weight != 0, mask & (before != 0))
    found = sm.find_masks(result.model)
    assert all(torch.equal(found[name], mask) for name, mask in result.masks.items())
    pruned = sum(int((~mask).sum()) for mask in result.masks.values())
    assert result.sparsity == pruned / layers.total


@pytest.mark.parametrize("repair", REPAIRS)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_with_every_kind_of_repair(digits, rule, repair):
    before = state_of(digits.model)
    result = compress(digits.model, digits.calibration, 0.9, rule, repair=repair)
    same(state_of(digits.model), before)
    check_masks(result, digits.model)
    assert result.allocation.kept == kept_total(0.9, result.allocation.total)
    assert (result.rule, result.mask, result.scope) == (rule, "magnitude", "sequential")
    assert result.repair == repair
    assert result.added_biases == ()
    assert not result.heldout
    assert result.agreement.count == 160
    assert (result.diagnosis is not None) == (rule in ("rr", "rr-density", "sensitivity"))
    assert result.model.state_dict().keys() == digits.model.state_dict().keys()
    assert type(result.model) is type(digits.model)


@pytest.mark.parametrize("mask", ["magnitude", "activation"])
@pytest.mark.parametrize("scope", ["sequential", "one-shot"])
def test_masks_and_scopes(digits, mask, scope):
    options = {"mask": mask, "scope": scope}
    result = compress(digits.model, digits.calibration, 0.8, "erk", **options)
    check_masks(result, digits.model)
    assert (result.mask, result.scope) == (mask, scope)
    other = "one-shot" if scope == "sequential" else "sequential"
    different = compress(digits.model, digits.calibration, 0.8, "erk", mask, scope=other)
    assert all(torch.equal(different.masks[n], m) for n, m in result.masks.items())
    assert not torch.equal(different.model.fc.weight, result.model.fc.weight)


def test_activation_masks_follow_the_inputs(digits):
    by_mask = [
        compress(digits.model, digits.calibration, 0.8, "uniform", mask, repair="none")
        for mask in ("magnitude", "activation")
    ]
    assert by_mask[0].allocation == by_mask[1].allocation
    assert any(
        not torch.equal(mask, by_mask[1].masks[name]) for name, mask in by_mask[0].masks.items()
    )
    # Wanda keeps as many weights in every row.
    for mask in by_mask[1].masks.values():
        kept = mask.flatten(1).sum(dim=1)
        assert int(kept.max() - kept.min()) <= 1


def test_agreement_on_heldout_inputs_equals_a_call_by_hand(digits):
    result = compress(digits.model, digits.calibration, 0.9, "global", heldout=digits.heldout)
    assert result.heldout
    assert result.agreement == sm.agreement(result.model, digits.model, digits.heldout)
    assert result.agreement.count == 128
    seen = compress(digits.model, digits.calibration, 0.9, "global")
    same_values(seen.model, result.model)
    assert seen.agreement == sm.agreement(result.model, digits.model, digits.calibration)


def test_the_parts_give_the_same_as_the_whole(digits):
    model, batches = digits.model, digits.calibration
    calibration = sm.calibrate(model, batches)
    diagnosis = sm.diagnose(model, calibration)
    allocation = sm.allocate(model, 0.9, "rr", diagnosis=diagnosis)
    pruned = sm.prune(model, allocation)
    repaired = sm.repair(pruned, model, batches, "variance")
    result = compress(model, batches, 0.9, "rr")
    assert result.allocation == allocation
    same_values(result.model, repaired)
    # Earlier results are taken over and not made anew.
    given = compress(model, batches, 0.9, "rr", calibration=calibration, diagnosis=diagnosis)
    same_values(given.model, repaired)
    assert given.diagnosis is diagnosis
    assert not {"calibrate", "diagnose"} & given.seconds.keys()
    # A diagnosis that the rule does not read is not part of the result.
    unused = compress(model, batches, 0.9, "erk", repair="none", diagnosis=diagnosis)
    assert unused.diagnosis is None


def test_repair_pays(digits):
    def top1(repair):
        result = compress(digits.model, digits.calibration, 0.9, "global", repair=repair)
        return sm.evaluate(result.model, digits.test).top1

    dense = sm.evaluate(digits.model, digits.test).top1
    assert dense > 0.97
    assert top1("none") < 0.5
    assert top1("variance") > 0.9
    assert top1("batchnorm") > 0.85


@pytest.mark.parametrize(("rule", "repair"), [("rr", "variance"), ("lamp", "affine+batchnorm-ema")])
def test_same_inputs_give_the_same_bits(digits, rule, repair):
    torch.manual_seed(1)
    first = compress(digits.model, digits.calibration, 0.95, rule, repair=repair)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = compress(digits.model, iter(digits.calibration), 0.95, rule, repair=repair)
    assert torch.equal(torch.get_rng_state(), state)
    same_values(first.model, second.model)
    assert first.allocation == second.allocation
    assert first.agreement == second.agreement


def test_batches_may_be_a_generator_or_one_tensor(digits):
    result = compress(digits.model, digits.calibration, 0.9, "rr", "activation")
    generator = (batch for batch in digits.calibration)
    same_values(compress(digits.model, generator, 0.9, "rr", "activation").model, result.model)
    whole = torch.cat(digits.calibration)
    cut = compress(digits.model, list(whole.split(128)), 0.9, "global")
    same_values(compress(digits.model, whole, 0.9, "global").model, cut.model)


def test_stages_are_timed(digits):
    plain = compress(digits.model, digits.calibration, 0.9, "global")
    assert list(plain.seconds) == ["allocate", "prune", "repair", "compare"]
    full = compress(digits.model, digits.calibration, 0.9, "rr")
    assert list(full.seconds) == [
        "calibrate",
        "diagnose",
        "allocate",
        "prune",
        "repair",
        "compare",
    ]
    wanda = compress(digits.model, digits.calibration, 0.9, "global", mask="activation")
    assert "calibrate" in wanda.seconds
    assert "diagnose" not in wanda.seconds
    assert all(value >= 0 for value in full.seconds.values())


@pytest.mark.parametrize("training", [True, False])
def test_training_flags_survive(digits, training):
    model = copy.deepcopy(digits.model).train(training)
    model.bn1.train(not training)
    before = state_of(model)
    result = compress(model, digits.calibration, 0.9, "rr", repair="variance+batchnorm-ema")
    same(state_of(model), before)
    assert [m.training for m in result.model.modules()] == before[2]
    assert all(p.requires_grad for p in result.model.parameters())


def test_in_place(digits):
    model = copy.deepcopy(digits.model)
    expected = compress(digits.model, digits.calibration, 0.9, "global", heldout=digits.heldout)
    result = compress(
        model, digits.calibration, 0.9, "global", heldout=digits.heldout, inplace=True
    )
    assert result.model is model
    same_values(model, expected.model)
    assert result.agreement == expected.agreement


@pytest.mark.parametrize("sparsity", [0, 0.995])
def test_extremes(digits, sparsity):
    result = compress(digits.model, digits.calibration, sparsity, "global")
    check_masks(result, digits.model)
    if sparsity == 0:
        assert result.sparsity == 0
        assert result.agreement.top1 == 1
        assert result.agreement.kl == pytest.approx(0, abs=1e-6)


def test_a_network_without_norms_and_biases_reports_the_new_ones():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 3, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 64, 5, bias=False),
    )
    before = state_of(model)
    x = torch.randn(40, 3, 8, 8)
    result = compress(model, x, 0.6, "global", new_biases=True)
    same(state_of(model), before)
    check_masks(result, model)
    assert (result.added_biases, result.unshifted) == (("0", "6"), ())
    assert result.model.state_dict().keys() - model.state_dict().keys() == {"0.bias", "6.bias"}
    assert str(result).endswith("got a bias parameter: 0, 6")
    none = compress(model, x, 0.6, "global", repair="none", new_biases=True)
    assert (none.added_biases, none.unshifted) == ((), ())


# A unit that keeps no weight is constant without a bias.
@pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge")
def test_a_network_without_norms_and_biases_keeps_its_parameters():
    def network():
        return nn.Sequential(nn.Linear(9, 8, bias=False), nn.ReLU(), nn.Linear(8, 5, bias=False))

    torch.manual_seed(0)
    model, x = network(), torch.randn(40, 9)
    for repair in ("none", "mean", "variance", "shrinkage", "affine", "reconstruct", "best"):
        result = compress(model, list(x.split(10)), 0.5, "erk", repair=repair)
        network().load_state_dict(result.model.state_dict(), strict=True)
        assert result.added_biases == ()
        # Shrinkage covers convolutions only.
        covered = () if repair in ("none", "shrinkage") else ("0", "2")
        assert result.unshifted == covered
        assert str(result).endswith("not shifted: 0, 2") == bool(covered)


@pytest.mark.parametrize("kind", ["linear", "convolutional"])
def test_networks_without_batchnorm(kind):
    torch.manual_seed(0)
    if kind == "linear":
        model, x = (
            nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5)),
            torch.randn(90, 20),
        )
    else:
        model, x = (
            nn.Sequential(nn.Conv1d(4, 9, 3), nn.ReLU(), nn.Conv1d(9, 5, 3)),
            torch.randn(30, 4, 9),
        )
    for rule in ("rr", "erk", "lamp"):
        result = compress(model, x, 0.7, rule, repair="affine", judge="kl")
        check_masks(result, model)
        plain = compress(model, x, 0.7, rule, repair="none", judge="kl")
        assert result.agreement.kl < plain.agreement.kl
    before = state_of(model)
    with pytest.raises(SparsemendError, match="no BatchNorm with running statistics"):
        compress(model, x, 0.7, "global", repair="batchnorm", inplace=True)
    same(state_of(model), before)


# Whether an input of a layer is constant depends on how many threads have trained the network.
@pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge")
def test_best_keeps_the_ending_that_is_closest_on_heldout_inputs(digits):
    options = {"mask": "magnitude", "heldout": digits.heldout}
    result = compress(digits.model, digits.calibration, 0.9, "global", repair="best", **options)
    check_masks(result, digits.model)
    plain = {"reconstruct", "reconstruct+batchnorm", "variance", "batchnorm"}
    assert set(result.tried) == {*plain, "reconstruct-mirrored"}
    assert result.agreement.kl == result.tried[result.repair] == min(result.tried.values())
    repair = result.repair.removesuffix("-mirrored")
    batches = digits.calibration if repair == result.repair else mirrored(digits.calibration)
    again = compress(digits.model, batches, 0.9, "global", repair=repair, **options)
    same_values(again.model, result.model)
    model = copy.deepcopy(digits.model)
    inplace = compress(
        model, digits.calibration, 0.9, "global", repair="best", inplace=True, **options
    )
    assert inplace.model is model
    same_values(model, result.model)


@pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge")
def test_best_is_the_default_and_chooses_masks_too(digits):
    result = sm.compress(digits.model, digits.calibration, 0.9, "global")
    check_masks(result, digits.model)
    assert result.mask == "gradual"
    assert result.heldout  # the last batch was set aside
    assert result.agreement.count == len(digits.calibration[-1])
    magnitude = compress(digits.model, digits.calibration, 0.9, "global")
    assert any(not torch.equal(magnitude.masks[n], m) for n, m in result.masks.items())


# Rule auto


def test_auto_is_the_default(digits):
    model, heldout = digits.model, digits.heldout
    before = state_of(model)
    result = compress(model, digits.calibration, 0.9, heldout=heldout, budget=10, judge="kl")
    same(state_of(model), before)
    check_masks(result, model)
    assert result.allocation.kept == kept_total(0.9, result.allocation.total)
    assert (result.rule, result.allocation.rule, result.mask) == ("auto", "auto", "magnitude")
    search = result.search
    assert set(search.plain) == set(RULES) - {"sensitivity", "owl"}
    assert search.kl == result.agreement.kl <= min(search.plain_kl.values())
    assert result.agreement.count == 128
    assert search.repairs <= 10
    assert result.diagnosis is not None
    assert list(result.seconds) == ["calibrate", "diagnose", "search", "prune", "repair", "compare"]
    # One of the rules by hand gives what the search says of it.
    by_hand = compress(model, digits.calibration, 0.9, "lamp", heldout=heldout)
    assert by_hand.search is None
    assert by_hand.agreement.kl == search.plain_kl["lamp"]


def test_auto_takes_earlier_results_over(digits):
    calibration = sm.calibrate(digits.model, digits.calibration)
    diagnosis = sm.diagnose(digits.model, calibration)
    options = {"heldout": digits.heldout, "budget": 8}
    given = compress(
        digits.model,
        digits.calibration,
        0.9,
        calibration=calibration,
        diagnosis=diagnosis,
        **options,
    )
    assert given.diagnosis is diagnosis
    assert not {"calibrate", "diagnose"} & given.seconds.keys()
    same_values(given.model, compress(digits.model, digits.calibration, 0.9, **options).model)


def test_auto_in_place_gives_the_same(digits):
    model = copy.deepcopy(digits.model)
    expected = compress(digits.model, digits.calibration, 0.9, budget=3)
    assert expected.heldout  # the last batch was set aside
    result = compress(model, digits.calibration, 0.9, budget=3, inplace=True)
    assert result.model is model
    same_values(model, expected.model)


def test_text(digits):
    result = compress(digits.model, digits.calibration, 0.9, "erk", repair="batchnorm(ema)")
    kept, total = result.allocation.kept, result.allocation.total
    assert str(result).splitlines() == [
        f"90.00 % sparse: {kept:,} of {total:,} weights kept",
        "rule erk, mask magnitude, repair batchnorm-ema (sequential)",
        f"{result.agreement} (calibration inputs)",
    ]
    unseen = compress(digits.model, digits.calibration, 0.9, "global", heldout=digits.heldout)
    assert str(unseen).endswith("(held-out inputs)")
    assert repr(result).startswith("CompressionResult(rule='erk', mask='magnitude', repair='batch")
    assert len(repr(result)) < 150
    assert repr(result.layers).startswith("LayerSet('")


X = torch.zeros(4, 1, 8, 8)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        *(
            (
                {"sparsity": s},
                rf"^sparsity is out of range: got {s!r}; allowed: a fraction in \[0, 1\)",
            )
            for s in (1.0, -0.1, math.nan, 1.5, 90)
        ),
        ({"sparsity": 0.9999}, "no allocation over .* the largest feasible sparsity is 0.99"),
        (
            {"rule": "snip"},
            "unknown allocation rule: got 'snip'; allowed: 'uniform', .*'rr-density'",
        ),
        ({"rule": "ERK"}, "did you mean 'erk'"),
        (
            {"budget": "soon"},
            "the search budget is not understood: got 'soon'; allowed: a positive",
        ),
        ({"budget": 0}, "the search budget is not understood: got 0"),
        ({"mask": "random"}, "unknown mask: got 'random'; allowed: magnitude, activation"),
        ({"mask": "gradual"}, "mask 'gradual' is chosen jointly with the reconstructed values"),
        ({"repair": "magic"}, "unknown repair: got 'magic'; allowed: .*none, mean, variance"),
        ({"repair": "batchnorm+variance"}, "unknown repair: got 'batchnorm"),
        ({"scope": "both"}, "unknown repair scope: got 'both'; allowed: sequential, one-shot"),
        ({"batches": []}, "batches is empty; allowed: an iterable of at least one batch"),
        ({"batches": X[:0]}, "batches is empty"),
        ({"batches": [X, X + math.nan]}, r"batches\[1\] holds NaN or infinite values"),
        (
            {"batches": [(X, torch.arange(4))]},
            r"batches\[0\] carries labels: a pair of torch.float32",
        ),
        ({"batches": [X.repeat(1, 3, 1, 1)]}, "the network cannot run on this batch"),
        ({"batches": [X, X.repeat(1, 3, 1, 1)]}, r"cannot run on .*shape"),
        ({"heldout": []}, "heldout is empty"),
        ({"heldout": [X, X / 0]}, r"heldout\[1\] holds NaN"),
        ({"heldout": [(X, torch.arange(4))]}, r"heldout\[0\] carries labels"),
    ],
)
def test_errors_come_before_any_change(digits, options, text):
    model = copy.deepcopy(digits.model)
    before = state_of(model)
    arguments = {"batches": [X], "sparsity": 0.9, **options}
    for inplace in (False, True) if "batches" not in options else (False,):
        with pytest.raises(SparsemendError, match=text):
            compress(model, **arguments, inplace=inplace)
        same(state_of(model), before)


def test_a_model_without_prunable_layers():
    with pytest.raises(SparsemendError, match="the model has no prunable layer that runs; allowed"):
        compress(nn.Sequential(nn.ReLU()), torch.zeros(2, 3), 0.5)


def test_a_diagnosis_of_another_network(digits):
    other = sm.models.create("digits", width=4)
    calibration = sm.calibrate(other, X)
    diagnosis = sm.diagnose(other, calibration)
    wrong = sm.Diagnosis(
        tuple(f"other.{name}" for name in diagnosis.layers),
        *(getattr(diagnosis, key) for key in ("densities", "raw", "residual", "rr")),
        repair="variance",
    )
    with pytest.raises(SparsemendError, match="the diagnosis is of other layers than the network"):
        compress(digits.model, [X], 0.9, "rr", diagnosis=wrong)


def test_only_a_search_has_a_budget(digits):
    text = r"^rule 'erk' does not search, so it has no budget: got 5; allowed: rule 'auto'$"
    with pytest.raises(SparsemendError, match=text):
        compress(digits.model, digits.calibration, 0.9, "erk", budget=5)


def test_as_plain_data(digits):
    result = compress(digits.model, digits.calibration, 0.9, "erk")
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["counts"] == dict(result.allocation)
    assert (values["kl"], values["agreement"]) == (result.agreement.kl, result.agreement.top1)
    assert (values["search"], values["version"]) == (None, sm.__version__)
    again = Compression.from_dict(values)
    assert again == Compression.of(result)
    assert again.top1_repaired is None


@pytest.mark.parametrize("repair", ["variance", "reconstruct"])
def test_an_allocation_of_another_network(digits, repair):
    allocation = sm.allocate(digits.model, 0.9, "erk")
    sizes = {**allocation.sizes, "fc": 2 * allocation.sizes["fc"]}
    other = sm.Allocation(allocation, sizes, "erk")
    with pytest.raises(SparsemendError, match=r"in another size: got \['fc'\]"):
        compress(digits.model, digits.calibration, other.sparsity, other, repair=repair)


# Numbers that are not finite, and errors half way


class OfNaN(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = small_network()

    def forward(self, x):
        return self.inner(x) * math.nan


IMAGES = list(torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(3)).split(8))
NAMED = {
    "NaN bias": (lambda: edited(lambda m: m[3].bias.fill_(math.nan)), "layer '3' has NaN"),
    "negative variance": (lambda: edited(lambda m: m[1].running_var.fill_(-1)), "layer '1' has"),
    "NaN mean": (lambda: edited(lambda m: m[1].running_mean.fill_(math.nan)), "layer '1' has"),
    "weights": (lambda: edited(lambda m: m[0].weight.fill_(1e38)), "outputs of layer '0'"),
    "float16": (
        lambda: edited(lambda m: m[3].weight.mul_(1e5)).half(),
        "outputs of layer '3' .* use model.float",
    ),
    "NaN outputs": (OfNaN, "the outputs of the network are not finite"),
}


@pytest.mark.filterwarnings("ignore::sparsemend.SparsemendWarning")
@pytest.mark.parametrize("rule", ["erk", "global", "rr"])
@pytest.mark.parametrize("repair", ["variance", "reconstruct", "batchnorm", "best"])
@pytest.mark.parametrize("case", NAMED)
def test_numbers_that_are_not_finite_name_the_layer(case, repair, rule):
    make, text = NAMED[case]
    model = make()
    before = state_of(model)
    with pytest.raises(SparsemendError, match=text):
        sm.compress(model, IMAGES, 0.9, rule, repair=repair)
    after = state_of(model)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0, equal_nan=True)
    assert after[1:] == before[1:]


def one_large():
    return [torch.cat([IMAGES[0][:1] * 1e20, IMAGES[0]])] * 2


@pytest.mark.filterwarnings("ignore::sparsemend.SparsemendWarning")
@pytest.mark.parametrize("repair", ["variance", "reconstruct", "batchnorm", "best"])
@pytest.mark.parametrize(
    "case", ["1e10", "1e18", "1e30", "one input of 1e20", "weights of 1e-30", "weights of 1e30"]
)
def test_extreme_numbers_end_in_finite_results_or_an_error(case, repair):
    """And they end: least squares had gone on forever."""
    model, batches = small_network(), IMAGES
    if case == "one input of 1e20":
        batches = one_large()
    elif case.startswith("weights"):
        factor = float(case.rsplit(" ", 1)[1])
        model = edited(lambda m: (m[3].weight.mul_(factor), m[3].bias.mul_(factor)))
    else:
        batches = [x * float(case) for x in IMAGES]
    try:
        result = sm.compress(model, batches, 0.9, "global", repair=repair)
    except SparsemendError:
        assert case != "weights of 1e-30"
        return
    assert all(value.isfinite().all() for value in result.model.state_dict().values())
    assert math.isfinite(result.agreement.kl)


def test_a_search_among_networks_of_nan_is_an_error():
    with pytest.raises(SparsemendError, match="the outputs of the network are not finite"):
        sm.compress(OfNaN(), IMAGES, 0.5, budget=1)


@pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge")
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("repair", "place", "after"),
    [
        ("variance", "repairs.matching.fold", 2),
        ("reconstruct", "repairs.reconstruction.fold", 2),
        ("best", "repairs.reconstruction.fold", 4),
        ("batchnorm", "repairs.batchnorm._set_statistics", 1),
        ("none", "evaluation.closeness.read_finite", 0),
    ],
)
def test_an_error_half_way_leaves_the_model_as_it_was(repair, place, after, error, monkeypatch):
    model, random = small_network().train(), torch.get_rng_state()
    model[6].weight.requires_grad_(False)
    before = state_of(model)
    grads = [parameter.requires_grad for parameter in model.parameters()]
    module, name = place.rsplit(".", 1)
    original = getattr(importlib.import_module(f"sparsemend.{module}"), name)
    calls = []

    def failing(*args, **options):
        calls.append(name)
        if len(calls) > after:
            raise error
        return original(*args, **options)

    monkeypatch.setattr(f"sparsemend.{place}", failing)
    if repair == "batchnorm":
        model[2] = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4))
        before = state_of(model)
        grads = [parameter.requires_grad for parameter in model.parameters()]
        random = torch.get_rng_state()
    with pytest.raises(SparsemendError if error is RuntimeError else error):
        sm.compress(model, IMAGES, 0.5, "erk", repair=repair, inplace=True)
    assert len(calls) == after + 1
    same(state_of(model), before)
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert torch.equal(torch.get_rng_state(), random)
