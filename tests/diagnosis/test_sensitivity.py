import copy

import numpy as np
import pytest
import torch
from tests.repairs.networks import conv_bn, images, perceptron, same_state
from torch import nn

import sparsemend as sm
from sparsemend.diagnosis import with_sensitivities
from sparsemend.diagnosis.sensitivity import ERROR, sensitivities
from sparsemend.errors import SparsemendError
from sparsemend.evaluation import Criterion
from sparsemend.execution.batches import batch_size
from sparsemend.layers import LayerFilter
from sparsemend.session import Session


@pytest.mark.parametrize("make", [conv_bn, perceptron])
def test_every_layer_has_one_and_the_model_is_unchanged(make):
    model = make().train()
    session = Session(model, [images()] if make is conv_bn else [torch.randn(40, 6)])
    before = copy.deepcopy(model)
    found = sensitivities(session)
    assert list(found) == list(session.layers.names)
    assert all(value > 0 for value in found.values())
    assert same_state(model, before)
    assert all(module.training for module in model.modules())
    assert sensitivities(session) == found


class Heard(nn.Module):
    """The output does not depend on the first layer, and on the second only a little."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.unheard, self.soft, self.loud = (nn.Linear(6, 5) for _ in range(3))

    def forward(self, x):
        return 0 * self.unheard(x) + 0.1 * self.soft(x) + self.loud(x)


RELATIVE = Criterion("relative")


def test_a_layer_that_does_not_matter_has_none():
    found = sensitivities(Session(Heard(), [torch.randn(60, 6)], criterion=RELATIVE))
    assert found["unheard"] == 0
    assert 0 < found["soft"] < 0.1 * found["loud"]


def test_of_a_layer_that_is_the_network_the_loss_is_the_error():
    """E‖z' − z‖² over Var z, where channels have equal variances: 1 per relative variance."""
    torch.manual_seed(0)
    model = nn.Linear(8, 300)
    x = torch.randn(64, 8)
    x -= x.mean(dim=0)
    with torch.no_grad():  # white inputs and rows of length 1
        x = torch.linalg.qr(x).Q * 8
        model.weight /= model.weight.norm(dim=1, keepdim=True)
    (found,) = sensitivities(Session(model, [x], criterion=RELATIVE)).values()
    assert found == pytest.approx(1, rel=1e-4)


def test_the_layer_runs_as_pruned_and_matched_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5))
    x = torch.randn(30, 2, 4, 4)
    session = Session(model, [x])
    diagnosis = sm.diagnose(model, session.calibration, "variance")
    row = diagnosis.residual[0]
    k = int(np.abs(row - ERROR).argmin())
    kept = max(1, int(diagnosis.densities[k] * model[0].weight.numel() + 0.5))
    by_hand = copy.deepcopy(model)
    weight = by_hand[0].weight.data
    order = weight.abs().flatten().argsort(descending=True, stable=True)
    weight.view(-1)[order[kept:]] = 0
    with torch.no_grad():
        z, pruned = (m[0](x).transpose(0, 1).flatten(1) for m in (model, by_hand))
        scale = z.std(dim=1, correction=0) / pruned.std(dim=1, correction=0)
        weight *= scale.view(-1, 1, 1, 1)
        bias = model[0].bias
        by_hand[0].bias.copy_(z.mean(dim=1) - scale * (pruned.mean(dim=1) - bias))
    expected = sm.agreement(by_hand, model, [x]).loss / row[k]
    assert sensitivities(session)["0"] == pytest.approx(expected, rel=1e-4)


def test_a_layer_that_cannot_be_pruned_and_one_that_does_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 1, bias=False), nn.Linear(1, 3))
    nn.init.zeros_(model[1].weight)
    found = sensitivities(Session(model, [torch.randn(20, 6)], criterion=RELATIVE))
    assert all(value == 0 for value in found.values())
    single = sensitivities(Session(nn.Linear(1, 1), [torch.randn(20, 1)], criterion=RELATIVE))
    assert list(single.values()) == [0]


def test_layers_that_are_too_wide_and_patterns():
    model, x = conv_bn(), images(30)
    calibration = sm.calibrate(model, x, max_fan_in=20)
    found = sensitivities(Session(model, [x], calibration=calibration))
    plain = sensitivities(Session(model, [x]))
    for name, value in plain.items():
        assert found[name] == pytest.approx(value, rel=0.01)
    blocks = sensitivities(Session(model, [x], chosen=LayerFilter.of(pattern="block:2x1")))
    assert all(value > 0 for value in blocks.values())


def test_outputs_that_become_infinite_count_as_the_worst():
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(6, 5), nn.Linear(6, 5)
            self.register_buffer("expected", self.first.weight.detach().clone())

        def forward(self, x):
            away = self.first(x) - nn.functional.linear(x, self.expected, self.first.bias)
            return self.second(x) + torch.where(away.abs() < 1e-3, 0.0, torch.nan)

    found = sensitivities(Session(Fragile(), [torch.randn(40, 6)], criterion=RELATIVE))
    assert found["first"] == found["second"] > 0


def test_they_become_part_of_a_diagnosis():
    model, x = conv_bn(), images(40)
    calibration = sm.calibrate(model, x)
    plain = sm.diagnose(model, calibration)
    found = sm.diagnose(model, calibration, batches=[x], judge="relative")
    assert plain.sensitivities is None
    np.testing.assert_array_equal(found.residual, plain.residual)
    session = Session(model, [x], criterion=RELATIVE)
    measured = sensitivities(session)
    np.testing.assert_array_equal(found.sensitivities, list(measured.values()))
    assert with_sensitivities(session, found) is found
    assert "sensitivity" in str(found)
    assert "sensitivity" not in str(plain)
    again = sm.Diagnosis.from_dict(found.to_dict())
    np.testing.assert_array_equal(again.sensitivities, found.sensitivities)
    allocation = sm.allocate(model, 0.7, "sensitivity", diagnosis=again)
    assert allocation.kept == sm.allocate(model, 0.7, "uniform").kept


def test_judges_without_batches_and_bad_values():
    model, x = conv_bn(), images(20)
    calibration = sm.calibrate(model, x)
    with pytest.raises(SparsemendError, match="without batches there is nothing to judge"):
        sm.diagnose(model, calibration, judge="relative")
    values = sm.diagnose(model, calibration).to_dict()
    for wrong in ([1.0], [float("nan")] * 4, "loud"):
        with pytest.raises(SparsemendError, match="this is not a diagnosis"):
            sm.Diagnosis.from_dict({**values, "sensitivities": wrong})


def test_it_is_measured_once_on_a_part_of_every_batch():
    model = conv_bn()
    seen = []
    session = Session(model, list(images(200).split(50)))
    hook = model.register_forward_pre_hook(lambda _, args: seen.append(batch_size(args[0])))
    _ = session.calibration, session.jury
    diagnosis = sm.diagnose(model, session.calibration)
    seen.clear()
    one = with_sensitivities(session, diagnosis)
    assert seen == [16] * 4 * (1 + len(session.layers))
    other = with_sensitivities(session, diagnosis)
    assert len(seen) == 4 * (1 + len(session.layers))
    hook.remove()
    np.testing.assert_array_equal(one.sensitivities, other.sensitivities)
