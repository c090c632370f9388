"""How much of a network its layers cover."""

import json
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sparsemend as sm
from sparsemend.errors import SparsemendWarning
from sparsemend.layers import Coverage, LeftOut, discover


def made():
    """60 of 100 matrix weights covered, in a network of 150 parameters."""
    parts = (
        LeftOut("a", 5, "tied", True),
        LeftOut("b", 20, "not reached", True),
        LeftOut("c", 15, "tied", True),
        LeftOut("d", 30, "looked up", False),
    )
    return Coverage(150, 60, parts)


def test_shares_are_of_what_is_multiplied_with():
    coverage = made()
    assert (coverage.matrix, coverage.share) == (100, 0.6)
    assert coverage.sparsity(15) == {"covered": 0.75, "matrix": 0.45, "parameters": 0.3}
    assert coverage.sparsity(60) == dict.fromkeys(("covered", "matrix", "parameters"), 0.0)


def test_a_network_without_parameters_has_no_share():
    empty = Coverage(0, 0)
    assert (empty.matrix, empty.share) == (0, 0)
    assert set(empty.sparsity(0).values()) == {0}


def test_reasons_go_together_and_the_most_weights_come_first():
    reasons = made().reasons()
    assert {reason: [part.parameter for part in parts] for reason, parts in reasons.items()} == {
        "looked up": ["d"],
        "not reached": ["b"],
        "tied": ["c", "a"],
    }
    assert str(made()).splitlines() == [
        "60 of 100 matrix weights covered (60.0 %), 150 parameters in all",
        "left out: d (30): looked up",
        "left out: b (20): not reached",
        "left out: c, a (20): tied",
    ]


def test_many_parameters_are_not_all_named():
    coverage = Coverage(9, 0, tuple(LeftOut(f"w{i}", 1, "why", True) for i in range(5)))
    assert str(coverage).splitlines()[1] == "left out: w0, w1, w2 and 2 more (5): why"


def test_it_is_plain_data():
    data = json.loads(json.dumps(made().to_dict()))
    assert (data["parameters"], data["matrix"], data["covered"]) == (150, 100, 60)
    assert data["left_out"][1] == {
        "parameter": "b", "count": 20, "reason": "not reached", "multiplied": True
    }  # fmt: skip


class Uses(nn.Module):
    """Uses a matrix by a function, in front of a layer."""

    def __init__(self, function, *shape):
        super().__init__()
        self.function, self.w = function, nn.Parameter(torch.rand(*shape) + 0.5)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.function(x, self.w))


@pytest.mark.parametrize(
    ("function", "shape", "reason"),
    [
        (lambda x, w: torch.einsum("ni,ii->ni", x, w), (4, 4), "multiplied by einsum, which no"),
        (
            lambda x, w: torch.sparse.mm(x.to_sparse(), w),
            (4, 4),
            "multiplied by _sparse_mm, which no kind of layer reads",
        ),
        (
            lambda x, w: torch.conv_tbc(x[None], w[None], x[0], 0)[0],
            (4, 4),
            "multiplied by conv_tbc, which no",
        ),
    ],
)
def test_products_that_no_kind_reads_count_among_the_matrices(function, shape, reason):
    with pytest.warns(SparsemendWarning, match=reason):
        coverage = discover(Uses(function, *shape), torch.randn(3, 4)).coverage
    (left,) = coverage.left_out
    assert (left.parameter, left.multiplied) == ("w", True)
    assert left.reason.startswith(reason)
    assert (coverage.covered, coverage.matrix) == (8, 8 + shape[0] * shape[1])


@pytest.mark.parametrize(
    ("function", "shape", "operation"),
    [
        (lambda x, w: x * w, (3, 4), "mul"),
        (lambda x, w: x + w, (1, 4), "add"),
        (lambda x, w: torch.cat([x, w]), (2, 4), "cat"),
        (lambda x, w: F.layer_norm(x[None], (3, 4), w), (3, 4), "layer_norm"),
    ],
)
def test_what_is_no_product_of_matrices_does_not_count_and_does_not_warn(
    function, shape, operation
):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coverage = discover(Uses(function, *shape), torch.randn(3, 4)).coverage
    (left,) = coverage.left_out
    assert left.reason == f"used by {operation}, which is no product of matrices"
    assert not left.multiplied
    assert (coverage.covered, coverage.matrix, coverage.share) == (8, 8, 1)


def test_a_norm_over_several_dimensions_is_no_matrix():
    net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm([3, 4]), nn.Linear(4, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coverage = discover(net, torch.randn(2, 3, 4)).coverage
    assert {part.parameter: part.multiplied for part in coverage.left_out} == {
        "1.weight": False,
        "1.bias": False,
    }
    assert coverage.share == 1


def test_plain_classifiers_are_covered_in_full():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    coverage = discover(net, torch.randn(2, 3, 4, 4)).coverage
    assert (coverage.covered, coverage.matrix, coverage.left_out) == (140, 140, ())
    assert coverage.parameters == sum(p.numel() for p in net.parameters())


def test_without_inputs_it_is_not_known_how_the_rest_is_used():
    net = nn.Sequential(nn.Linear(4, 4), nn.Embedding(3, 4))
    (left,) = discover(net).coverage.left_out
    assert (left.parameter, left.count) == ("1.weight", 12)
    assert left.reason == "it is not known how it is used"


def test_results_say_what_they_cover():
    net = Uses(lambda x, w: torch.conv_tbc(x[None], w[None], x[0], 0)[0], 4, 4)
    with pytest.warns(SparsemendWarning, match="conv_tbc"):
        result = sm.compress(net, torch.randn(30, 4), 0.5, "uniform", repair="none")
    zeros = sum(int((p == 0).sum()) for p in result.model.parameters())
    assert zeros == 4
    assert "conv_tbc" in str(result)
