"""The public sweep and ablation."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sparsemend as sm
from sparsemend import SparsemendError

SIZES = {"calibration_size": 64, "heldout_size": 64, "batch_size": 32, "limit": 100}


@pytest.fixture(scope="module")
def images(digits_cache):
    loaded = sm.models.load("digits", digits_cache / "digits.safetensors")
    return sm.data.load("digits", mean=loaded.mean, std=loaded.std)


def small(width=6, classes=4):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, classes))


def batches(seed):
    return list(torch.randn(5, 8, 6, generator=torch.Generator().manual_seed(seed)))


def test_images(digits, images, tmp_path):
    state = {name: value.clone() for name, value in digits.model.state_dict().items()}
    store = tmp_path / "s.sqlite"
    options = {"rules": ["erk", "rr"], "repairs": "batchnorm", "store": store, **SIZES}
    preview = sm.sweep(digits.model, images, "0.8:0.9:0.05", dry_run=True, **options)
    assert (len(preview.pending), preview.records) == (6, ())
    assert not store.exists()
    result = sm.sweep(digits.model, images, "0.8:0.9:0.05", **options)
    assert [record.cell for record in result.records] == list(preview.pending)
    assert {record.cell.network for record in result.records} == {"ResNet"}
    assert sm.SweepResult.load(store).records == result.records
    assert len(result.transitions()) == 4
    for name, value in digits.model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_inputs_of_ones_own():
    labelled = DataLoader(TensorDataset(torch.randn(30, 6), torch.arange(30) % 4), batch_size=10)
    result = sm.sweep(
        {"a": small(), "b": small().double()},
        batches,
        [0.3, 0.5],
        heldout=lambda seed: batches(seed + 100),
        test=labelled,
        repairs=["mean", "reconstruct"],
        seeds=range(2),
    )
    assert len(result.records) == 16
    assert {(r.cell.repair, r.cell.mask) for r in result.records} == {
        ("mean", "magnitude"),
        ("reconstruct", "gradual"),
    }
    by_hand = sm.compress(small(), batches(1), 0.5, "global", repair="mean", heldout=batches(101))
    (record,) = (
        r for r in result.records
        if (r.cell.network, r.cell.repair, r.cell.sparsity, r.cell.seed) == ("a", "mean", 0.5, 1)
    )  # fmt: skip
    assert record.kl == by_hand.agreement.kl
    assert record.top1_repaired == sm.evaluate(by_hand.model, labelled).top1


def test_cells_of_another_pattern_are_others(tmp_path):
    store, options = tmp_path / "s.sqlite", {"repairs": "variance", "heldout": batches(9)}
    for pattern, sparsities, computed in [("1:2", None, 1), ("1:2", 0.5, 0), ("free", 0.5, 1)]:
        result = sm.sweep(small(), batches, sparsities, pattern=pattern, store=store, **options)
        assert result.computed == computed
        (record,) = result.records
        assert (record.settings.pattern, record.achieved_sparsity) == (pattern, 0.5)
        assert record.cell.rule == ("uniform" if pattern == "1:2" else "global")
    with pytest.raises(SparsemendError, match="cannot have rule: got 'erk"):
        sm.ablate(small(), batches, force="first", source="lamp", rule="erk", pattern="1:2")
    with pytest.raises(SparsemendError, match="the sweep has no sparsities"):
        sm.sweep(small(), batches, pattern="block:1x2")


def test_a_diagnosis_goes_with_one_network(digits, images):
    inputs = images.calibration(64)
    calibration = sm.calibrate(digits.model, inputs)
    diagnosis = sm.diagnose(digits.model, calibration, "none")
    options = {"rules": ["rr", "erk"], "repairs": "mean", "diagnosis": diagnosis, **SIZES}
    result = sm.sweep(digits.model, images, 0.9, **options)
    assert [bool(record.settings.diagnosis) for record in result.records] == [True, False]
    with pytest.raises(SparsemendError, match="a diagnosis is of one network, but there are"):
        sm.sweep({"a": digits.model, "b": digits.model}, images, 0.9, **options)


def test_networks_on_data_of_their_own(digits, images):
    other = sm.data.load("digits", mean=(0.0,), std=(1.0,))
    models = {"x": digits.model, "y": digits.model}
    result = sm.sweep(models, {"x": images, "y": other}, 0.9, repairs="mean", **SIZES)
    x, y = result.records
    assert x.settings.inputs != y.settings.inputs
    assert x.settings.weights == y.settings.weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is out of range: got 0"),
        ({"workers": 2, "ray": "local"}, "workers and ray exclude each other"),
        ({"seeds": []}, "the sweep has no seeds"),
        ({"rules": "snip"}, "unknown allocation rule: got 'snip'"),
        ({"heldout": [torch.ones(2, 1, 8, 8)]}, "heldout and test go with inputs of your own"),
        ({"calibration_size": 1300}, "would overlap the calibration images"),
    ],
)
def test_bad_options_leave_nothing_behind(digits, images, tmp_path, options, message):
    with pytest.raises(SparsemendError) as caught:
        sm.sweep(digits.model, images, 0.9, store=tmp_path / "s.sqlite", **(SIZES | options))
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_bad_networks(digits, images):
    with pytest.raises(SparsemendError, match="there is no network to sweep"):
        sm.sweep({}, images, 0.9)
    with pytest.raises(SparsemendError, match=r"different names: got \['b'\]; allowed: a"):
        sm.sweep({"a": digits.model}, {"b": images}, 0.9)


def test_ablation(digits, images):
    result = sm.ablate(
        {"digits": digits.model},
        images,
        [0.9, 0.95],
        force="projection",
        source="lamp",
        repairs="batchnorm",
        seeds=[1, 2],
        **SIZES,
    )
    assert result.layers == {"digits": ("layer2.0.downsample.0", "layer3.0.downsample.0")}
    rules = dict.fromkeys(record.cell.rule for record in result.sweep.records)
    assert list(rules) == ["erk", "erk[projection=lamp]", "lamp"]
    assert [found.sparsity for found in result.comparisons()] == [0.9, 0.95]
    for found in result.comparisons():
        assert found.base_density > found.source_density  # what the ablation is about
        assert found.gain.count == 2
    densities = {r.cell.rule: r.densities for r in result.sweep.records if r.cell.sparsity == 0.9}
    for name in result.layers["digits"]:
        assert densities["erk[projection=lamp]"][name] == densities["lamp"][name]


def test_ablations_that_cannot_be(digits, images):
    with pytest.raises(SparsemendError, match="no layer of the network is meant by this pattern"):
        sm.ablate(digits.model, images, 0.9, force="depthwise", source="lamp", **SIZES)
    with pytest.raises(SparsemendError, match="unknown allocation rule: got 'snip'"):
        sm.ablate(digits.model, images, 0.9, force="fc", source="snip", **SIZES)
    with pytest.raises(SparsemendError, match="ablate has no such option: got 'speed'"):
        sm.ablate(digits.model, images, 0.9, force="fc", source="lamp", speed=9)


def test_targets_in_the_place_of_sparsities(tmp_path):
    store, options = tmp_path / "s.sqlite", {"rules": ["erk", "lamp"], "heldout": batches(9)}
    asked = {"target_flops": ["0.5", 0.25, 0.5], "repairs": "mean", **options}
    result = sm.sweep(small(), batches, store=store, **asked)
    assert [record.cell.target for record in result.records] == ["flops 0.25", "flops 0.5"] * 2
    for record in result.records:
        by_hand = sm.compress(
            small(), batches(0), None, record.cell.rule, repair="mean", heldout=batches(9),
            target_flops=record.cell.parsed_target.limit,
        )  # fmt: skip
        assert record.cell.sparsity is None
        assert record.reached == by_hand.reached == record.kept_multiplications
        assert (record.kl, record.densities) == (by_hand.agreement.kl, by_hand.allocation.densities)
    assert sm.sweep(small(), batches, store=store, **asked).computed == 0
    assert sm.SweepResult.load(store).records == result.records
    assert "recovery by agreement at target_flops" in str(result)
    assert not result.transitions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_flops": 0.1, "sparsities": 0.9}, "got 'sparsities and target_flops'"),
        ({"target_flops": 0.1, "target_size": "1KiB"}, "got 'target_flops and target_size'"),
        ({"target_flops": []}, "target_flops has no values"),
        ({"target_latency": ["1ms", "2"]}, "target_latency is not understood: got '2'"),
        ({"target_flops": 0.1, "pattern": "1:2"}, "pattern '1:2' says itself"),
    ],
)
def test_budgets_that_are_refused(options, message):
    with pytest.raises(SparsemendError) as caught:
        sm.sweep(small(), batches, **options)
    assert message in str(caught.value)
