"""Weights that are not multiplied with as they are, or where nobody sees it: named, not pruned."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sparsemend as sm
from sparsemend.errors import SparsemendError, SparsemendWarning

COMPUTED = "the network multiplies with what is computed from it"


@torch.library.custom_op("sparsemend_tests::product", mutates_args=())
def custom_product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w


def matrix_product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    scripted_product = torch.jit.script(matrix_product)


class Net(nn.Module):
    """Some function of inputs and a parameter, then a linear layer."""

    def __init__(self, function, *shape, dtype=torch.float32):
        super().__init__()
        self.w = nn.Parameter(torch.randn(*shape, dtype=dtype))
        self.function, self.head = function, nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.relu(self.function(x, self.w)))


def modulated(x, w):
    """A convolution whose weight every input scales in its own way."""
    weights = w[None] * x.mean(2)[:, None, :, None]
    y = F.conv1d(x.reshape(1, -1, 6), weights.reshape(-1, 4, 1), groups=len(x))
    return y.reshape(len(x), -1, 6).mean(1)


def of_experts(x, w):
    expert = (x[:, 0] > 0).long()
    return torch.bmm(x[:, None], w[expert])[:, 0]


CASES = {
    "vmap": (
        Net(lambda x, w: torch.vmap(lambda row: F.linear(row, w))(x), 6, 4),
        (8, 4), "multiplied by linear (vmap), which no kind of layer reads",
    ),
    "vmap over weights": (
        Net(lambda x, w: torch.vmap(F.linear, (None, 0))(x, w).sum(0), 2, 6, 4),
        (8, 4), "multiplied by linear (vmap), which no kind of layer reads",
    ),
    "complex numbers": (
        Net(lambda x, w: (x.to(w.dtype) @ w).real, 4, 6, dtype=torch.complex64),
        (8, 4), "multiplied by matmul, which no kind of layer reads",
    ),
    "operators of others": (
        Net(lambda x, w: custom_product(x, w), 4, 6),
        (8, 4), "used by sparsemend_tests::product, of which it is not known what it does",
    ),
    "scripted functions": (
        Net(lambda x, w: scripted_product(x, w), 4, 6), (8, 4), "not reached by the calibration",
    ),
    "inputs change the weight": (Net(modulated, 5, 4, 1), (8, 4, 6), COMPUTED),
    "matrices chosen by inputs": (Net(of_experts, 2, 4, 6), (8, 4), COMPUTED),
    "rows in another order": (
        Net(lambda x, w: F.linear(x, w[torch.arange(5, -1, -1)]), 6, 4), (8, 4), COMPUTED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_left_out_with_its_reason(name):
    network, shape, reason = CASES[name]
    x = torch.randn(*shape)
    with pytest.warns(SparsemendWarning):
        result = sm.compress(network.eval(), x, 0.5, "uniform", repair="variance")
    (part,) = result.coverage.left_out
    assert (part.parameter, part.count) == ("w", network.w.numel())
    assert part.reason.startswith(reason)
    assert result.coverage.matrix == network.w.numel() + 18
    assert set(result.allocation) == {"head"}
    assert torch.equal(result.model.w, network.w)


class Indexed(nn.Module):
    """Looks rows up by an index, and multiplies with them."""

    def __init__(self):
        super().__init__()
        self.table, self.body = nn.Parameter(torch.randn(9, 4)), nn.Linear(4, 4)

    def forward(self, ids):
        return torch.relu(self.body(self.table[ids])) @ self.table.T


def test_an_index_of_inputs_is_an_embedding():
    ids = torch.randint(0, 9, (6, 5))
    with pytest.warns(SparsemendWarning, match="tied to an embedding"):
        assert sm.discover(Indexed(), ids).names == ("body",)
    assert set(sm.discover(Indexed(), ids, include="embedding").names) == {"body", "table"}


class Positions(nn.Module):
    """Indexes what a layer makes of positions, as Swin V2 does."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Linear(1, 6), nn.Linear(6, 3)
        self.register_buffer("index", torch.tensor([0, 2, 1, 0]))

    def forward(self, x):
        places = torch.arange(3.0)[:, None]
        return self.head(x + self.table(places)[self.index])


def test_a_table_that_a_layer_makes_is_no_embedding():
    assert sm.discover(Positions(), torch.randn(5, 4, 6)).names == ("table", "head")


class Keeping(nn.Module):
    """Keeps the transposed weight of its first run."""

    def __init__(self):
        super().__init__()
        self.first, self.head, self.kept = nn.Linear(4, 6), nn.Linear(6, 3), None

    def forward(self, x):
        if self.kept is None:
            self.kept = self.first.weight.detach().T.contiguous()
        return self.head(torch.relu(x @ self.kept))


class Alternating(nn.Module):
    """Two layers that take turns."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        return self.head(torch.relu((self.one if self.runs % 2 else self.other)(x)))


def test_a_weight_that_is_used_in_the_first_run_only():
    with pytest.warns(SparsemendWarning, match="not used when the network runs again"):
        assert sm.discover(Keeping(), torch.randn(8, 4)).names == ("head",)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = sm.discover(Alternating(), torch.randn(8, 4), [torch.randn(8, 4)])
    assert set(layers.names) == {"one", "other", "head"}


SOMEWHERE = nn.Linear(4, 6)


class Elsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = SOMEWHERE, nn.Linear(6, 3)

    def forward(self, x):
        return self.head(SOMEWHERE(x))


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.steps = [lambda x: self.first(x), lambda x: self.head(x)]

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return x


@pytest.mark.parametrize("make", [Elsewhere, Listed])
def test_a_copy_that_runs_the_original_is_refused(make):
    network = make().eval()
    before = copy.deepcopy(network.state_dict())
    message = "a copy of the network uses the network's own parameters"
    with pytest.raises(SparsemendError, match=message):
        sm.compress(network, torch.randn(8, 4), 0.5, "uniform", repair="variance")
    pruned = copy.deepcopy(network)
    with pytest.raises(SparsemendError, match=message):
        sm.repair(pruned, network, torch.randn(8, 4))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Compiled(nn.Module):
    """A function inside is compiled."""

    def __init__(self):
        super().__init__()
        self.w, self.head = nn.Parameter(torch.randn(4, 6)), nn.Linear(6, 3)
        self.product = torch.compile(torch.matmul, backend="eager")

    def forward(self, x):
        return self.head(torch.relu(self.product(x, self.w)))


def plain():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


MADE = {
    "compiled inside": Compiled,
    "torch.fx": lambda: torch.fx.symbolic_trace(plain()),
    "exported": lambda: torch.export.export(plain(), (torch.randn(8, 4),)).module(),
}


@pytest.mark.filterwarnings("ignore:reconstruction leans", "ignore::FutureWarning")
@pytest.mark.parametrize("repair", ["variance", "reconstruct"])
@pytest.mark.parametrize("name", MADE)
def test_what_runs_as_it_is_written_is_seen(name, repair):
    torch.manual_seed(0)
    network = MADE[name]()
    x = [torch.randn(8, 4) for _ in range(4)]
    result = sm.compress(network, x, 0.5, "uniform", repair=repair)
    assert result.coverage.share == 1
    assert len(result.allocation) == 2
    assert sum(int((p == 0).sum()) for p in result.model.parameters()) == 21
    with torch.no_grad():
        assert not torch.equal(result.model(x[0]), network(x[0]))
