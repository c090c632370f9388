"""Which weights a network multiplies with, whatever module or function does it."""

import copy
import warnings
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.layers import discover, layer_weight

from . import operations as ops
from .operations import seeded

COMPUTED = "the network multiplies with what is computed from it"
UNREACHED = "not reached by the calibration inputs"


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def routed(*experts):
    x = normal(len(experts), 5)
    x[:, 0] = torch.tensor(experts)
    return x


def ids():
    return torch.randint(0, 9, (4, 5), generator=torch.Generator().manual_seed(0))


@dataclass
class Situation:
    """A network, what it is called with, and what must be found.

    Attributes
    ----------
    layers
        Name → shape of the weight as its kind stores it, in execution order.
    left_out
        Parameter → (count, reason) of what the network multiplies with, but no layer covers.
    unmultiplied
        The same of what it does not multiply with.
    """

    make: object
    batches: list
    layers: dict
    left_out: dict = field(default_factory=dict)
    unmultiplied: dict = field(default_factory=dict)


def sequential(first, last):
    return lambda: nn.Sequential(first(5, 6), nn.ReLU(), last(6, 3))


def encoder():
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


SITUATIONS = {
    "self-attention": Situation(
        ops.SelfAttention,
        [normal(3, 5, 8)],
        {"attention.in_proj_weight": (24, 8), "attention.out_proj": (8, 8), "head": (3, 8)},
    ),
    "cross-attention": Situation(
        ops.CrossAttention,
        [normal(3, 5, 8)],
        {
            "memory": (8, 8),
            "attention.in_proj_weight[0:8]": (8, 8),
            "attention.in_proj_weight[8:24]": (16, 8),
            "attention.out_proj": (8, 8),
        },
    ),
    "attention to three sources": Situation(
        ops.Apart,
        [normal(3, 5, 8)],
        {
            "attention.in_proj_weight[0:8]": (8, 8),
            "attention.in_proj_weight[8:16]": (8, 8),
            "attention.in_proj_weight[16:24]": (8, 8),
            "attention.out_proj": (8, 8),
        },
    ),
    "transformer layer": Situation(
        encoder,
        [normal(3, 5, 8)],
        {
            "self_attn.in_proj_weight": (24, 8),
            "self_attn.out_proj": (8, 8),
            "linear1": (16, 8),
            "linear2": (8, 16),
        },
    ),
    "GPT-2's Conv1D": Situation(ops.GPT, [normal(3, 5, 6)], {"fc": (12, 6), "proj": (6, 12)}),
    "weights of modules that do not run": Situation(
        ops.Functional, [normal(4, 6)], {"qkv": (9, 6), "out": (6, 3)}
    ),
    "slices": Situation(
        ops.Slices, [normal(4, 5)], {"w[0:8]": (8, 5), "w[8:12]": (4, 5), "head": (3, 4)}
    ),
    "experts": Situation(
        ops.Experts,
        [routed(1, 1, 1), routed(1, 0, 2, 1)],
        {"experts[0]": (7, 5), "experts[1]": (7, 5), "experts[2]": (7, 5), "head": (4, 7)},
    ),
    "an expert that no input reaches": Situation(
        ops.Experts,
        [routed(2, 2, 2), routed(0, 2)],
        {"experts[0]": (7, 5), "experts[2]": (7, 5), "head": (4, 7)},
        {"experts": (35, UNREACHED)},
    ),
    "products with parameters": Situation(
        ops.Product, [normal(4, 5)], {"w": (7, 5), "turned": (4, 7)}
    ),
    "a bias that is added apart": Situation(
        sequential(ops.Handmade, ops.Handmade), [normal(4, 5)], {"0": (6, 5), "2": (3, 6)}
    ),
    "a forward that was replaced on the class": Situation(
        sequential(ops.Patched, ops.Patched), [normal(4, 5)], {"0": (6, 5), "2": (3, 6)}
    ),
    "padding before the call": Situation(
        lambda: ops.convolutions(ops.Same, 0),
        [normal(4, 3, 8, 8)],
        {"0": (6, 3, 3, 3), "2": (8, 6, 3, 3), "6": (5, 8)},
    ),
    "weight standardisation": Situation(
        lambda: ops.convolutions(ops.Standardised, 1),
        [normal(4, 3, 8, 8)],
        {"6": (5, 8)},
        {"0.weight": (162, COMPUTED), "2.weight": (432, COMPUTED)},
    ),
    "a low-rank update": Situation(
        sequential(ops.LowRank, nn.Linear),
        [normal(4, 5)],
        {"2": (3, 6)},
        {"0.weight": (30, COMPUTED), "0.a": (10, COMPUTED), "0.b": (12, COMPUTED)},
    ),
    "weight norm": Situation(
        ops.normalised,
        [normal(4, 5)],
        {"2": (4, 6)},
        {
            "0.parametrizations.weight.original0": (6, COMPUTED),
            "0.parametrizations.weight.original1": (30, COMPUTED),
        },
    ),
    "a head tied to an embedding": Situation(
        lambda: ops.Sequence(tie=True),
        [ids()],
        {"fc": (6, 6)},
        {"embedding.weight": (54, "tied to an embedding")},
    ),
    "a head that is not tied": Situation(
        lambda: ops.Sequence(tie=False),
        [ids()],
        {"fc": (6, 6), "head": (9, 6)},
        unmultiplied={"embedding.weight": (54, "an embedding is looked up")},
    ),
    "one weight in two directions": Situation(
        ops.Autoencoder,
        [normal(4, 6)],
        {"middle": (4, 4)},
        {"encoder.weight": (24, "read in several ways that overlap")},
    ),
    "a layer that some batches run": Situation(
        ops.Sometimes,
        [-normal(4, 5).abs(), normal(4, 5).abs()],
        {"first": (6, 5), "more": (6, 6), "last": (4, 6)},
    ),
    "a layer that no batch runs": Situation(
        ops.Sometimes,
        [-normal(4, 5).abs()],
        {"first": (6, 5), "last": (4, 6)},
        {"more.weight": (36, UNREACHED)},
    ),
    "a recurrent layer": Situation(
        lambda: nn.LSTM(4, 3, batch_first=True),
        [normal(4, 2, 4)],
        {"weight_ih_l0": (12, 4), "weight_hh_l0": (12, 3)},
    ),
}


@pytest.fixture(params=SITUATIONS)
def situation(request):
    return SITUATIONS[request.param]


@pytest.fixture
def model(situation):
    return seeded(situation.make)


def found(model, batches):
    """Layers, and the warnings that were given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return discover(model, batches[0], batches[1:]), caught


def test_layers_are_what_is_multiplied_with(situation, model):
    layers, caught = found(model, situation.batches)
    assert {layer.name: layer.shape for layer in layers} == situation.layers
    assert list(layers.names) == list(situation.layers)
    assert [layer.order for layer in layers] == list(range(len(layers)))
    assert len(caught) == bool(situation.left_out)
    for warning in caught:
        assert issubclass(warning.category, SparsemendWarning)
        assert str(warning.message) == str(layers.coverage)


def test_coverage_counts_every_matrix_weight(situation, model):
    coverage = found(model, situation.batches)[0].coverage
    assert coverage.covered == sum(torch.Size(s).numel() for s in situation.layers.values())
    assert coverage.parameters == sum(p.numel() for p in model.parameters())
    missing = sum(count for count, _ in situation.left_out.values())
    assert coverage.matrix == coverage.covered + missing
    told = {part.parameter: part for part in coverage.left_out}
    assert set(told) == {*situation.left_out, *situation.unmultiplied}
    for expected, multiplied in ((situation.left_out, True), (situation.unmultiplied, False)):
        for name, (count, reason) in expected.items():
            assert (told[name].count, told[name].multiplied) == (count, multiplied)
            assert told[name].reason.startswith(reason)


def test_weights_are_those_of_the_model_and_of_its_copies(situation, model):
    layers = found(model, situation.batches)[0]
    twin = copy.deepcopy(model)
    parameters = {p.untyped_storage().data_ptr() for p in twin.parameters()}
    for layer in layers:
        ours, theirs = layer_weight(model, layer), layer_weight(twin, layer)
        assert tuple(ours.shape) == layer.shape
        assert torch.equal(ours, theirs)
        assert theirs.untyped_storage().data_ptr() in parameters
        theirs.fill_(7)
    changed = sum(int((p == 7).sum()) for p in twin.parameters())
    assert changed == layers.total
    assert not any((p == 7).any() for p in model.parameters())


def test_nothing_is_left_behind(situation, model):
    state, checks = copy.deepcopy(model.state_dict()), F.has_torch_function
    found(model, situation.batches)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert F.has_torch_function is checks
    assert not any(p.grad is not None for p in model.parameters())


def test_a_weight_tied_to_an_embedding_is_a_layer_where_that_is_asked_for():
    model = seeded(lambda: ops.Sequence(tie=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layers = discover(model, ids(), include="embedding")
    assert {layer.name: layer.shape for layer in layers} == {"fc": (6, 6), "embedding": (9, 6)}
    assert layers["embedding"].aliases == ("head",)
    assert layers.coverage.share == 1


def test_biases_are_what_the_calls_add():
    layers = discover(seeded(ops.CrossAttention), normal(3, 5, 8))
    found = {x.name: [(b.parameter, b.shape, b.offset) for b in x.biases] for x in layers}
    assert found == {
        "memory": [("memory.bias", (8,), 0)],
        "attention.in_proj_weight[0:8]": [("attention.in_proj_bias", (8,), 0)],
        "attention.in_proj_weight[8:24]": [("attention.in_proj_bias", (16,), 8)],
        "attention.out_proj": [("attention.out_proj.bias", (8,), 0)],
    }


def test_calls_are_those_of_the_run_with_the_most():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.last = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 2)
            self.rare = nn.Linear(4, 4)

        def forward(self, x):
            for _ in range(len(x)):
                x = torch.tanh(x @ self.w)
            return self.last(self.rare(self.rare(x)) if len(x) > 2 else x)

    layers, _ = found(seeded(Loop), [normal(3, 4)])
    assert {x.name: x.calls for x in layers} == {"w": 3, "rare": 2, "last": 1}


def test_a_vector_is_no_matrix():
    class Vector(nn.Module):
        def __init__(self):
            super().__init__()
            self.v, self.fc = nn.Parameter(torch.randn(4)), nn.Linear(4, 4)

        def forward(self, x):
            return F.linear(self.fc(x), self.v)

    layers, caught = found(seeded(Vector), [normal(3, 4)])
    assert layers.names == ("fc",)
    assert (layers.coverage.left_out, caught) == ((), [])


def test_a_gated_weight_in_place_of_a_module():
    class Gated(nn.Module):
        """A pruning mask held as a buffer."""

        def __init__(self):
            super().__init__()
            self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
            self.register_buffer("mask", torch.eye(4))

        def forward(self, x):
            return self.last(F.linear(x, self.fc.weight * self.mask, self.fc.bias))

    layers, _ = found(seeded(Gated), [normal(3, 4)])
    assert layers.names == ("last",)
    assert [part.parameter for part in layers.coverage.left_out] == ["fc.weight"]


def test_where_nothing_is_left_the_reasons_are_told():
    with pytest.raises(SparsemendError) as caught:
        discover(seeded(lambda: nn.Sequential(ops.LowRank(5, 6))), normal(4, 5))
    assert str(caught.value).startswith("the model has no prunable layer that runs; allowed: ")
    assert f"left out: 0.weight: {COMPUTED}" in str(caught.value)
