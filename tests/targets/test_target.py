"""Targets as users write them, and what is reached."""

import copy

import pytest
import torch
from tests.repairs.networks import conv_bn, images

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.allocation import RULES
from sparsemend.graphs import trace
from sparsemend.layers import count_multiplications, kept_multiplications
from sparsemend.packed import pack
from sparsemend.targets import KINDS, Subject, Target, latency, read_target, size

MODEL, BATCH = conv_bn(width=12), images(16)


@pytest.mark.parametrize(
    ("said", "limit", "text"),
    [
        ({"target_flops": 0.1}, 0.1, "at most 0.1 of the multiplications"),
        ({"target_flops": 1}, 1.0, "at most 1 of the multiplications"),
        ({"target_latency": "500us"}, 5e-4, "at most 0.5 ms an input on the sparse runtime"),
        ({"target_latency": " 1.5 ms"}, 1.5e-3, "at most 1.5 ms an input on the sparse runtime"),
        ({"target_size": "100KiB"}, 102400, "at most 100 KiB in a packed file"),
        ({"target_size": "2MB"}, 2e6, "at most 1953.12 KiB in a packed file"),
    ],
)
def test_what_is_understood(said, limit, text):
    target = read_target(None, **dict.fromkeys(KINDS), **said)
    assert target.limit == pytest.approx(limit)
    assert target.told(None) == text
    assert target.told(target.limit) == f"{text}; reached {target.kind.text(target.limit)}"


def test_a_sparsity_is_no_target():
    assert read_target(0.9, target_flops=None) is None


@pytest.mark.filterwarnings("ignore:the output of the sparse network does not depend")
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "uniform+"])
@pytest.mark.parametrize("share", [0.15, 0.6])
def test_every_rule_keeps_its_share_of_the_multiplications(rule, share):
    result = sm.compress(MODEL, [BATCH], None, rule, repair="none", target_flops=share)
    assert result.reached == result.kept_multiplications
    nonzero = {x.name: int(result.masks[x.name].sum()) for x in result.layers}
    sizes = result.allocation.sizes
    dense = count_multiplications(MODEL, result.layers, BATCH)
    kept = kept_multiplications(dense, nonzero, sizes) / sum(dense.values())
    assert share - 0.01 < kept <= share
    # Weights that read channels of which none is left do not multiply.
    assert result.reached < kept or result.reached == pytest.approx(kept)


def test_layers_that_are_left_out_count_as_dense():
    layers = sm.discover(MODEL, BATCH)
    dense = count_multiplications(MODEL, layers, BATCH)
    first, total = layers[0].name, sum(dense.values())
    fixed = dense[first] / total
    result = sm.compress(
        MODEL, [BATCH], rule="erk", repair="none", target_flops=fixed + 0.1, exclude="first"
    )
    assert fixed + 0.09 < result.reached <= fixed + 0.1
    assert first not in result.allocation
    assert result.multiplications[first] == dense[first]
    with pytest.raises(SparsemendError, match=r"target_flops cannot be reached.*at least 0\.\d"):
        sm.allocate(MODEL, rule="erk", target_flops=fixed, example=BATCH, exclude="first")


def test_the_smallest_share_that_is_told_can_be_reached():
    with pytest.raises(SparsemendError, match="at least") as caught:
        sm.allocate(MODEL, target_flops=1e-6, example=BATCH)
    least = float(str(caught.value).split("at least ")[1].split(";")[0])
    assert sm.allocate(MODEL, target_flops=least, example=BATCH).kept <= 2 * len(MODEL)


def test_size_is_that_of_the_packed_file():
    layers = sm.discover(MODEL, BATCH)
    sparse = len(pack(trace(sm.prune(MODEL, sm.allocate(MODEL, 0.7)), BATCH[:1]).graph))
    allocation = sm.allocate(
        MODEL, rule="erk", layers=layers, target_size=f"{sparse}B", example=BATCH
    )
    pruned = sm.prune(MODEL, allocation)
    assert abs(len(pack(trace(pruned, BATCH[:1]).graph)) / sparse - 1) < 0.02


@pytest.mark.parametrize("inplace", [False, True])
def test_what_was_not_foreseen_is_made_once_more(monkeypatch, inplace):
    monkeypatch.setattr(size, "_SCATTER", 3.0)  # as if repairs left nothing of how weights are
    model = copy.deepcopy(MODEL)
    result = sm.compress(
        model, [BATCH], rule="erk", repair="none", target_size="6KiB", inplace=inplace
    )
    assert "once more" in result.seconds
    assert abs(result.reached / 6144 - 1) < 0.01
    assert result.reached == len(pack(trace(result.model, BATCH[:1]).graph))
    assert (result.model is model) == inplace
    counts = {name: int(mask.sum()) for name, mask in sm.find_masks(result.model).items()}
    assert counts == dict(result.allocation)


def test_time_is_corrected_by_what_is_measured(monkeypatch):
    """Kernels of which each costs a rate of its own, and all less in a larger network."""
    layers = sm.discover(MODEL, BATCH)
    rates = dict(zip(layers.names, (4e-6, 1e-6, 2e-6, 3e-6, 1e-6), strict=False))

    def timed(network, _):
        found = {
            layer.name: rates[layer.name]
            * int(network.get_submodule(layer.name).weight.count_nonzero())
            for layer in layers
        }
        return 1e-4 + sum(found.values()) ** 0.9, found

    monkeypatch.setattr(latency, "time_network", timed)
    monkeypatch.setattr(latency, "instruction_sets", lambda: ("any",))
    for rule in ("uniform", "erk"):
        result = sm.compress(MODEL, [BATCH], rule=rule, repair="none", target_latency="3ms")
        assert result.reached == pytest.approx(3e-3, rel=0.02)
        assert result.reached == timed(result.model, BATCH)[0]
    assert result.to_dict()["target"]["kind"] == "latency"


def test_time_needs_kernels_and_a_machine_that_is_not_busy(monkeypatch):
    monkeypatch.setattr(latency, "instruction_sets", lambda: ("any",))
    monkeypatch.setattr(latency, "time_network", lambda *_: (1e-3, {}))
    with pytest.raises(SparsemendError, match=r"measured to cost no more than .* too busy"):
        sm.allocate(MODEL, target_latency="1ms", example=BATCH)
    monkeypatch.setattr(latency, "instruction_sets", lambda: ())
    with pytest.raises(SparsemendError, match="target_latency needs the kernels"):
        sm.allocate(MODEL, target_latency="1ms", example=BATCH)


@pytest.mark.skipif(not sm.runtime.instruction_sets(), reason="the kernels are not built")
def test_a_network_is_timed_with_its_layers():
    subject = Subject(MODEL, sm.discover(MODEL, BATCH), BATCH)
    seconds, layers = latency.time_network(subject.pruned(subject.uniform(0.1)), BATCH)
    assert seconds > 0
    assert set(layers) <= set(subject.layers.names)


def test_layers_that_no_input_reaches_have_no_known_cost():
    class Gated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = (torch.nn.Linear(4, 3) for _ in range(2))

        def forward(self, x):
            return self.one(x) if x.sum() > 0 else self.other(x)

    model, batches = Gated(), [torch.ones(4, 4), -torch.ones(4, 4)]
    layers = sm.discover(model, *batches[:1], batches[1:])
    with pytest.raises(SparsemendError, match="layer 'other' does not multiply on the first"):
        sm.allocate(model, layers=layers, target_flops=0.5, example=batches[0])


def test_a_search_keeps_the_target():
    batches = list(images(48).split(12))
    result = sm.compress(
        MODEL, batches, rule="auto", repair="variance", target_flops=0.4, budget=10
    )
    assert 0.39 < result.reached <= 0.4
    sizes = tuple(result.allocation.sizes.values())
    for trial in result.search.trials:
        dense = result.multiplications
        counts = dict(zip(result.allocation, trial.counts, strict=True))
        kept = kept_multiplications(dense, counts, dict(zip(counts, sizes, strict=True)))
        assert kept <= 0.4 * sum(dense.values()) * (1 + 1e-9)


@pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge")
def test_a_plan_keeps_the_target_and_is_done_again():
    batches = list(images(48).split(12))
    before = copy.deepcopy(MODEL.state_dict())
    result = sm.compress(MODEL, batches, target_flops=0.4, budget="3s")
    sizes = result.allocation.sizes
    kept = kept_multiplications(result.multiplications, result.allocation, sizes)
    assert 0.38 < kept / sum(result.multiplications.values()) <= 0.4
    assert result.reached <= 0.4
    again = sm.compress(MODEL, batches, target_flops=0.4, plan=result.plan)
    assert again.allocation == result.allocation
    assert again.reached == result.reached
    assert "at most 0.4 of the multiplications; reached 0." in str(again)
    assert all(torch.equal(before[key], value) for key, value in MODEL.state_dict().items())


def test_a_network_that_is_too_small_to_measure():
    model = torch.nn.Linear(2, 3)
    with pytest.raises(SparsemendError, match=r"cannot be pruned to two densities.*target_flops"):
        sm.allocate(model, target_size="1KiB", example=torch.ones(2, 2))


@pytest.mark.parametrize("name", KINDS)
def test_what_stores_keep_is_exact(name):
    target = Target(KINDS[name], 1 / 3)
    assert Target.parse(target.written) == target


def test_a_kind_that_a_store_does_not_know():
    with pytest.raises(SparsemendError, match="there is no such target: got 'joules 3'"):
        Target.parse("joules 3")
