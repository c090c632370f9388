import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from sparsemend.calibration import InputMoments, WideLayerMoments, calibrate
from sparsemend.diagnosis import diagnose
from sparsemend.errors import SparsemendError, SparsemendWarning


def make_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 4 * 4, 5),
    )


def make_inputs(count=24, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 6, 6, generator=generator) + 0.5


def assert_same(one, other, rtol=1e-12):
    """Equal moments up to rounding."""
    assert one.inputs == other.inputs
    assert one.moments.keys() == other.moments.keys()
    for name, a in one.moments.items():
        b = other.moments[name]
        pairs = [(a, b)]
        if isinstance(a, WideLayerMoments):
            pairs = [
                (a.columns, b.columns),
                *((getattr(a.outputs, key), getattr(b.outputs, key))
                  for key in ("dense", "pruned", "error")),
            ]  # fmt: skip
        for x, y in pairs:
            assert x.count == y.count
            torch.testing.assert_close(x.mean, y.mean, rtol=rtol, atol=rtol)
            scale = y.scatter.abs().max().item()
            torch.testing.assert_close(x.scatter, y.scatter, rtol=rtol, atol=rtol * scale)


def assert_same_diagnosis(one, other, rtol):
    for name in ("raw", "residual"):
        a, b = (torch.from_numpy(getattr(d, name)) for d in (one, other))
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * 1e-3)


# What is accumulated


def test_moments_are_those_of_the_layers_inputs():
    net, x = make_network().double().eval(), make_inputs().double()
    calibration = calibrate(net, x)
    assert calibration.inputs == 24
    assert calibration.layers.names == ("0", "3", "6")
    inputs = net[:6](x).detach()
    got = calibration.moments["6"]
    assert got.count == 24
    torch.testing.assert_close(got.mean[0], inputs.mean(0), rtol=1e-12, atol=1e-12)
    expected = torch.cov(inputs.T, correction=0)
    torch.testing.assert_close(got.covariance[0], expected, rtol=1e-9, atol=1e-12)
    grouped = calibration.moments["3"]
    assert (grouped.count, tuple(grouped.scatter.shape)) == (24 * 16, (2, 18, 18))
    assert calibration.moments["0"].count == 24 * 36


def test_a_layer_that_runs_twice_sees_both_inputs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(torch.relu(self.fc(x)))

    net, x = Twice().double(), torch.randn(8, 3).double()
    expected = torch.cat([x, torch.relu(net.fc(x))]).detach()
    got = calibrate(net, x).moments["fc"]
    assert got.count == 16
    torch.testing.assert_close(got.mean[0], expected.mean(0))


def test_tied_layers_see_the_inputs_of_all():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    net[2].weight = net[0].weight
    x = torch.randn(8, 3).double()
    expected = torch.cat([x, torch.tanh(net[0](x))]).detach()
    calibration = calibrate(net, x)
    assert list(calibration.moments) == ["0"]
    torch.testing.assert_close(calibration.moments["0"].mean[0], expected.mean(0))


def test_evaluation_mode_and_nothing_else_changes():
    net, x = make_network().train(), make_inputs()
    net[1].eval()
    flags = [m.training for m in net.modules()]
    before = copy.deepcopy(net.state_dict())
    calibration = calibrate(net, x)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert [m.training for m in net.modules()] == flags
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())
    assert_same(calibration, calibrate(net.eval(), x), rtol=0)


def test_half_precision_is_accumulated_in_full():
    net, x = nn.Sequential(nn.Linear(6, 3)).bfloat16(), 100 + torch.randn(512, 6)
    got = calibrate(net, x).moments["0"]
    seen = x.bfloat16().double()
    torch.testing.assert_close(got.mean[0], seen.mean(0), rtol=1e-9, atol=0)
    assert got.scatter.dtype == torch.float64
    expected = torch.cov(seen.T, correction=0)
    torch.testing.assert_close(got.covariance[0], expected, rtol=0, atol=1e-5)


# Batches


def test_order_of_batches_does_not_matter():
    net, batches = make_network(), make_inputs().split((5, 8, 1, 10))
    calibration = calibrate(net, batches)
    for order in ((3, 2, 1, 0), (1, 3, 0, 2)):
        assert_same(calibrate(net, [batches[i] for i in order]), calibration)


def test_size_of_batches_does_not_matter():
    net, x = make_network(), make_inputs(200)
    whole = diagnose(net, calibrate(net, [x]))
    for parts in (x, x.split(7), (part for part in x.split(50))):
        assert_same_diagnosis(diagnose(net, calibrate(net, parts)), whole, rtol=1e-4)


def test_loaders_and_generators():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(make_inputs())

    net, x = make_network(), make_inputs()
    expected = calibrate(net, x.split(8))
    for batches in (
        DataLoader(x, batch_size=8),
        DataLoader(Stream(), batch_size=8),
        iter(x.split(8)),
        ({"input": part} for part in x.split(8)),
        [((part,), {}) for part in x.split(8)],
    ):
        assert_same(calibrate(net, batches), expected)


@pytest.mark.parametrize("batches", [[], iter([]), torch.empty(0, 3, 6, 6)])
def test_no_batches(batches):
    with pytest.raises(SparsemendError, match=r"^batches is empty; allowed: .* at least one batch"):
        calibrate(make_network(), batches)


@pytest.mark.parametrize("index", [0, 2])
def test_bad_batches_are_named(index):
    net, batches = make_network(), list(make_inputs().split(8))
    labelled, nan, empty = list(batches), list(batches), list(batches)
    labelled[index] = (batches[index], torch.zeros(8, dtype=torch.long))
    nan[index] = batches[index] * torch.nan
    empty[index] = batches[index][:0]
    where = rf"^batches\[{index}\] "
    with pytest.raises(SparsemendError, match=where + "carries labels: .* pass only the inputs"):
        calibrate(net, labelled)
    with pytest.raises(SparsemendError, match=where + "holds NaN or infinite values"):
        calibrate(net, nan)
    with pytest.raises(SparsemendError, match=where + "holds no inputs"):
        calibrate(net, empty)
    assert all(not m._forward_pre_hooks for m in net.modules())


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


@pytest.mark.parametrize("max_fan_in", [1, 99])
def test_activations_that_are_no_numbers_name_the_layer_where_they_began(max_fan_in):
    net = nn.Sequential(nn.Linear(4, 4), Scale(torch.inf), nn.ReLU(), nn.Linear(4, 4))
    with pytest.raises(SparsemendError) as caught:
        calibrate(net, torch.randn(8, 4), max_fan_in=max_fan_in)
    assert str(caught.value) == (
        "the outputs of layer '1' (Scale) are not finite: 32 of 32 are NaN or infinite; check the "
        "inputs and the network; in float16, whose numbers end at 65,504, use model.float() or "
        "model.bfloat16()"
    )
    assert all(not m._forward_pre_hooks and not m._forward_hooks for m in net.modules())


@pytest.mark.parametrize("max_fan_in", [1, 99])
@pytest.mark.parametrize("exponent", [-80, -33, 33, 80])
def test_moments_do_not_depend_on_the_unit(exponent, max_fan_in):
    """Squares of these inputs leave the range of float32, or come close."""
    unit, x = 2.0**exponent, torch.randn(8, 4)
    plain, scaled = (
        calibrate(nn.Sequential(Scale(factor), nn.Linear(4, 4)), x, max_fan_in=max_fan_in)
        for factor in (1.0, unit)
    )
    expected, got = (found.moments["1"].column_square for found in (plain, scaled))
    torch.testing.assert_close(got / unit**2, expected, rtol=1e-6, atol=0)


def test_a_layer_may_be_called_by_keyword():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(input=x)

    x = torch.randn(8, 4)
    moments = calibrate(Keyword(), x).moments["fc"]
    assert moments.count == 8
    torch.testing.assert_close(moments.mean[0].to(x.dtype), x.mean(dim=0))


def test_layers_that_do_not_run_are_told():
    class Idle(nn.Sequential):
        def forward(self, x):
            return self[0](x)

    with pytest.warns(SparsemendWarning, match=r"1\.weight.*: not reached by the calibration"):
        calibration = calibrate(Idle(nn.Linear(4, 4), nn.Linear(4, 4)), torch.randn(8, 4))
    assert list(calibration.moments) == ["0"]


def test_no_prunable_layer():
    with pytest.raises(SparsemendError, match="the model has no prunable layer that runs"):
        calibrate(nn.Sequential(nn.ReLU()), torch.randn(8, 4))


# Wide layers


@pytest.mark.parametrize("repair", ["variance", "shrinkage", "affine"])
def test_wide_layers_get_the_same_diagnosis(repair):
    net, x = make_network(), make_inputs(200)
    full, wide = calibrate(net, x), calibrate(net, x, max_fan_in=1)
    assert all(isinstance(m, InputMoments) for m in full.moments.values())
    assert all(isinstance(m, WideLayerMoments) for m in wide.moments.values())
    assert_same_diagnosis(diagnose(net, wide, repair), diagnose(net, full, repair), rtol=1e-5)


def test_column_squares_of_wide_layers_are_the_same():
    net, x = make_network(), make_inputs()
    full, wide = calibrate(net, x), calibrate(net, x, max_fan_in=1)
    for name, moments in full.moments.items():
        other = wide.moments[name].column_square
        torch.testing.assert_close(other, moments.column_square, rtol=1e-5, atol=0)


def test_the_limit_is_by_layer():
    net, x = make_network(), make_inputs()
    kinds = {n: type(m) for n, m in calibrate(net, x, max_fan_in=27).moments.items()}
    assert kinds == {"0": InputMoments, "3": InputMoments, "6": WideLayerMoments}


def test_wide_layers_know_their_own_grid_and_magnitude_only():
    net, x = make_network(), make_inputs()
    wide = calibrate(net, x, max_fan_in=1, densities=[0.1, 0.5])
    assert diagnose(net, wide, densities=[0.5, 0.1]).raw.shape == (3, 2)
    for options in ({}, {"densities": [0.1, 0.5], "mask": "activation"}):
        with pytest.raises(SparsemendError, match=r"layer '0' is too wide \(fan-in 27\) for an"):
            diagnose(net, wide, **options)


# Merging


@pytest.mark.parametrize("max_fan_in", [1, 30, 4608])
def test_merging_equals_one_pass(max_fan_in):
    net, batches = make_network(), make_inputs().split((5, 8, 1, 10))
    parts = [calibrate(net, batches[i : i + 2], max_fan_in=max_fan_in) for i in (0, 2)]
    parts[1].merge(parts[0])
    assert_same(parts[1], calibrate(net, batches, max_fan_in=max_fan_in))


def snapshot(calibration):
    return calibration.inputs, copy.deepcopy(calibration.moments)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: calibrate(make_network()[:4], x), "of different networks cannot be merged"),
        (lambda x: calibrate(wider(), x), "of different networks cannot be merged"),
        (
            lambda x: calibrate(make_network(), x, max_fan_in=50),
            "layer '6' was calibrated with another max_fan_in",
        ),
        (
            lambda x: calibrate(make_network(), x, densities=[0.5], max_fan_in=20),
            "of different density grids cannot be merged",
        ),
    ],
)
def test_calibrations_that_do_not_fit_are_refused_and_nothing_is_merged(change, text):
    x = make_inputs()
    limit = 20 if "grids" in text else 4608
    calibration = calibrate(make_network(), x, max_fan_in=limit)
    inputs, moments = snapshot(calibration)
    with pytest.raises(SparsemendError, match=text):
        calibration.merge(change(x))
    for name, before in moments.items():
        now = calibration.moments[name]
        if isinstance(now, InputMoments):
            assert torch.equal(now.scatter, before.scatter)
        else:
            assert torch.equal(now.outputs.error.scatter, before.outputs.error.scatter)
    assert calibration.inputs == inputs


def wider():
    net = make_network()
    net[6] = nn.Linear(6 * 4 * 4, 7)
    return net


def test_text_names_every_layer():
    text = str(calibrate(make_network(), make_inputs()))
    assert text.startswith("Calibration of 3 layers on 24 inputs\n")
    assert all(f"\n{name} " in text for name in ("0", "3", "6"))


# A sample of positions


def test_a_sample_of_positions_is_that_of_evenly_spaced_inputs():
    net, x = make_network().double().eval(), make_inputs().double()
    found = calibrate(net, [x], positions_per_batch=108, progress=False).moments
    every = {"0": 8, "3": 4, "6": 1}  # 36, 16 and 1 positions an input
    hidden = {"0": x, "3": net[:3](x).detach(), "6": net[:6](x).detach()}
    for name, step in every.items():
        expected = calibrate(
            nn.Sequential(net.get_submodule(name)), [hidden[name][::step]], progress=False
        ).moments["0"]
        assert found[name].count == expected.count
        torch.testing.assert_close(found[name].scatter, expected.scatter, rtol=1e-9, atol=1e-9)


def test_a_sample_keeps_at_least_one_input_and_single_inputs_whole():
    net = nn.Sequential(nn.Conv2d(3, 2, 3))
    x = torch.randn(5, 3, 6, 6)
    assert calibrate(net, [x], positions_per_batch=1, progress=False).moments["0"].count == 16
    single = calibrate(net, [x[0]], positions_per_batch=1, progress=False)
    assert single.moments["0"].count == 16


def test_a_sample_of_nothing_is_refused():
    with pytest.raises(SparsemendError, match="positions_per_batch is out of range: got 0"):
        calibrate(make_network(), make_inputs(), positions_per_batch=0)
