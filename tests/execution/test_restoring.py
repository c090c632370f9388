"""After an error a network is what it was, down to the objects."""

import copy

import pytest
import torch
from torch import nn

from sparsemend.execution.restoring import restored_on_error


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3))
    model[2].weight.requires_grad_(False)
    model[1].train(False)
    return model


def break_values(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
        model[1].running_mean += 1


def add_and_remove(model):
    model[0].register_parameter("bias", nn.Parameter(torch.zeros(4)))
    model[0].register_buffer("extra", torch.zeros(4))
    del model[2].bias
    model[1].running_var = None


def replace(model):
    model[0].weight = nn.Parameter(torch.zeros(4, 3))


def flags(model):
    model.requires_grad_(True).train()
    model[0].weight.requires_grad_(False)


def draw(model):  # noqa: ARG001
    torch.rand(3)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("change", [break_values, add_and_remove, replace, flags, draw])
def test_everything_is_given_back(change, error):
    model = network()
    before, objects = copy.deepcopy(model), dict(model.named_parameters())
    random = torch.get_rng_state()
    with pytest.raises(error), restored_on_error(model):  # noqa: PT012
        change(model)
        raise error
    values, expected = model.state_dict(), before.state_dict()
    assert list(values) == list(expected)
    assert all(torch.equal(values[key], expected[key]) for key in values)
    for name, parameter in model.named_parameters():
        assert parameter is objects[name]
        assert parameter.requires_grad == before.get_parameter(name).requires_grad
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert torch.equal(torch.get_rng_state(), random)


def test_without_an_error_changes_stay():
    model = network()
    with restored_on_error(model):
        add_and_remove(model)
        break_values(model)
    assert model[0].bias is not None
    assert model[0].weight.isnan().all()


def test_tied_and_lazy_parameters():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.LazyLinear(2))
    model[1].weight = model[0].weight
    before = model[0].weight.detach().clone()
    with pytest.raises(ValueError, match="x"), restored_on_error(model):  # noqa: PT012
        nn.init.zeros_(model[1].weight)
        raise ValueError("x")
    assert model[1].weight is model[0].weight
    assert torch.equal(model[0].weight, before)
