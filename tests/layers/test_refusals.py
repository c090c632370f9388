"""Networks that are refused by name, and harmless ones that look like them."""

import copy
import functools
import sys
import types

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.layers import discover

X = torch.randn(24, 20, generator=torch.Generator().manual_seed(0))


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5)).eval()


def compiled():
    return torch.compile(plain(), backend="eager")


def compiled_inside():
    return nn.Sequential(torch.compile(nn.Linear(20, 16), backend="eager"), nn.Linear(16, 5))


def compiled_in_place():
    model = plain()
    model.compile(backend="eager")
    return model


def compiled_layer_in_place():
    model = plain()
    model[2].compile(backend="eager")
    return model


@pytest.mark.filterwarnings("ignore")
def scripted():
    return torch.jit.script(plain())


def traced_inside():
    return nn.Sequential(torch.jit.trace(nn.Linear(20, 16), X[:2]), nn.Linear(16, 5))


@pytest.mark.filterwarnings("ignore")
def lazy():
    return nn.Sequential(nn.Linear(20, 16), nn.LazyBatchNorm1d(), nn.Linear(16, 5))


def sharing_memory():
    model = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20))
    model[2].weight.data = model[0].weight.data
    return model


class Packed(nn.Module):
    """As quantised layers of PyTorch keep their weight."""

    def __init__(self):
        super().__init__()
        self._packed_params = (torch.zeros(5, 16, dtype=torch.int8), None)

    def forward(self, x):
        return x @ self._packed_params[0].float().T


class Quantised(nn.Linear):
    """A layer whose weight is of whole numbers."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        weight = (8 * self.weight.detach()).to(torch.int8)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x):
        return x @ self.weight.float().T / 8


REFUSED = {
    compiled: r"the network was compiled by torch.compile \(OptimizedModule\).*model._orig_mod",
    compiled_inside: r"module '0' was compiled .*put its _orig_mod back into the place of '0'",
    compiled_in_place: r"the network was compiled in place by Sequential.compile\(\).*compress the",
    compiled_layer_in_place: r"module '2' was compiled in place by Linear.compile\(\)",
    scripted: r"the network is a scripted or traced module.*pass the eager network",
    traced_inside: r"module '0' is a scripted or traced module",
    lambda: plain().to(torch.float8_e4m3fn): (
        r"'0' has a weight that is quantised, packed or not real: got 'Parameter of torch.float8"
    ),
    lazy: r"layer '1' is lazy and has no values yet; run the model once first",
    sharing_memory: r"'0.weight' and '2.weight' share memory, but are not one.*model.b.weight = ",
    lambda: nn.Sequential(nn.Linear(20, 16), Packed()): r"module '1' is quantised \(.*Packed\)",
    lambda: nn.Sequential(nn.Linear(20, 16), Quantised(16, 5)): (
        r"'1' has a weight that is quantised, packed or not real: got 'Parameter of torch.int8'"
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_refused_by_name_before_any_work(make):
    model = make()
    for job in (
        lambda: discover(model),
        lambda: discover(model, X),
        lambda: sm.calibrate(model, [X]),
        lambda: sm.compress(model, [X], 0.5, "erk", repair="variance"),
        lambda: sm.compress(model, [X], 0.5, "erk", repair="variance", inplace=True),
        lambda: sm.prune(model, {"0": 5}),
        lambda: sm.repair(model, plain(), [X]),
    ):
        with pytest.raises(SparsemendError, match=REFUSED[make]):
            job()


def test_sharded_weights_are_refused(monkeypatch):
    class DTensor(nn.Parameter):
        """In the place of PyTorch's, which needs a group of processes."""

    module = types.ModuleType("torch.distributed.tensor")
    module.DTensor = DTensor
    monkeypatch.setitem(sys.modules, "torch.distributed.tensor", module)
    model = plain()
    discover(model, X)
    model[2].weight = DTensor(model[2].weight.detach())
    text = r"^parameter 'weight' of module '2' is sharded \(DTensor\); allowed: plain tensors; "
    with pytest.raises(SparsemendError, match=text):
        discover(model, X)


def test_floating_helpers_of_quantisation_are_no_quantisation():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(20, 5), nn.Linear(20, 5)
            self.sum = torch.ao.nn.quantized.FloatFunctional()

        def forward(self, x):
            return self.sum.add(self.one(x), self.other(x))

    assert discover(Sum(), X).names == ("one", "other")


# Functions that a network holds


def patched():
    model = plain()
    original = model.forward
    model.forward = lambda x: original(x)
    return model


def patched_inside():
    model = nn.Sequential(plain(), nn.Linear(5, 5))
    original = model[0].forward
    model[0].forward = lambda x: original(x)
    return model


def patched_layer():
    model = plain()
    original = model[2].forward
    model[2].forward = lambda x: original(x)
    return model


class Lambda(nn.Module):
    """A network that holds a function over itself."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(20, 16), nn.Linear(16, 5)
        self.body = lambda x: self.layer(x).relu()

    def forward(self, x):
        return self.head(self.body(x))


KEPT = {
    patched: r"keeps to the original \(the network\): got \['0.weight', '0.bias', '2.weight'",
    patched_inside: r"keeps to the original \(0\): got \['0.0.weight', '0.0.bias', '0.2.weight'",
    patched_layer: r"keeps to the original \(2\): got \['2.weight', '2.bias'\]",
    Lambda: r"keeps to the original \(the network\): got \['layer.weight', 'layer.bias'\]",
}
JOBS = ("none", "variance", "reconstruct", "best")


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("repair", JOBS)
@pytest.mark.parametrize("make", KEPT)
def test_copies_that_would_run_the_original_are_refused(make, repair, inplace):
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = "^a copy of the network uses the network's own parameters: .*" + KEPT[make]
    with pytest.raises(SparsemendError, match=text):
        sm.compress(model, list(X.split(6)), 0.5, "erk", repair=repair, inplace=inplace)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_pruned_network_that_keeps_to_another_is_refused():
    pruned = patched()
    with pytest.raises(SparsemendError, match="a copy of the network uses"):
        sm.repair(pruned, plain(), [X])


def doubled(layers, x):
    for layer in layers:
        x = layer(x)
    return 2 * x


def with_method():
    model = plain()
    model.forward = types.MethodType(doubled, model)
    return model


def with_partial():
    model = plain()
    model.forward = functools.partial(doubled, model)
    return model


def with_own_method():
    model = plain()
    model.forward = model.forward  # a bound method is copied along
    return model


def with_harmless_function():
    model = plain()
    model[1].forward = lambda x: torch.relu(x)
    return model


HARMLESS = (with_method, with_partial, with_own_method, with_harmless_function)


@pytest.mark.filterwarnings("ignore:reconstruction leans")
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("make", HARMLESS)
def test_copies_that_run_by_themselves_are_not_refused(make, inplace):
    for repair in JOBS:
        model, dense = make(), make()
        result = sm.compress(model, list(X.split(6)), 0.5, "erk", repair=repair, inplace=inplace)
        own = copy.deepcopy(plain())
        own.load_state_dict(result.model.state_dict())
        with torch.no_grad():
            scale = dense(X) / plain()(X)
            torch.testing.assert_close(result.model(X), scale * own(X))
        assert any((m == 0).any() for m in result.masks.values())


@pytest.mark.parametrize("make", [plain, *HARMLESS])
def test_looking_changes_nothing(make):
    model = make().train()
    held = [dict(vars(module)) for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    discover(model, X)
    assert [dict(vars(module)) for module in model.modules()] == held
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
