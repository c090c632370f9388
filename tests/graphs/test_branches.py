"""Branches whose results are constant are gone."""

import torch
from torch import nn

import sparsemend as sm
from sparsemend.graphs import shrink, trace
from sparsemend.graphs.branches import without_idle_branches
from sparsemend.graphs.operations import Add, Affine, Convolution


class Block(nn.Module):
    """relu(shortcut(x) + branch(x))."""

    def __init__(self, *, projected):
        super().__init__()
        self.shortcut = nn.Conv2d(3, 3, 1) if projected else nn.Identity()
        self.branch = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(),
            nn.Conv2d(5, 3, 3, padding=1), nn.BatchNorm2d(3),
        )  # fmt: skip

    def forward(self, x):
        return torch.relu(self.shortcut(x) + self.branch(x))


def network(empty, *, projected):
    torch.manual_seed(0)
    model = nn.Sequential(Block(projected=projected), Block(projected=projected)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.bias.data.normal_()
    model.get_submodule(empty).weight.data.zero_()
    return model, torch.randn(2, 3, 6, 6)


def operations(graph, kind):
    return [node.name for node in graph if isinstance(node.operation, kind)]


def check(model, x, graph):
    torch.testing.assert_close(graph.run(x)[0], model(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_branch_that_ends_without_weights_is_gone():
    model, x = network("1.branch.3", projected=False)
    traced = trace(model, x).graph
    graph = without_idle_branches(traced)
    check(model, x, graph)
    assert operations(graph, Convolution) == ["0.branch.0", "0.branch.3"]
    assert len(operations(graph, Add)) == len(operations(graph, Affine)) == 1
    check(model, x, shrink(traced))
    assert len(operations(shrink(traced), Convolution)) == 2


@torch.no_grad()
def test_what_it_added_becomes_part_of_the_projection():
    model, x = network("1.branch.3", projected=True)
    graph = without_idle_branches(trace(model, x).graph)
    check(model, x, graph)
    assert operations(graph, Convolution) == [
        "0.shortcut",
        "0.branch.0",
        "0.branch.3",
        "1.shortcut",
    ]
    assert not operations(graph, Affine)


@torch.no_grad()
def test_a_branch_that_only_begins_without_weights_stays():
    # Behind its padding the second convolution sees something else at the border.
    model, x = network("1.branch.0", projected=False)
    graph = trace(model, x).graph
    assert without_idle_branches(graph) is graph
    check(model, x, shrink(graph))


@torch.no_grad()
def test_the_runtime_and_exports_leave_it_out(tmp_path):
    model, x = network("1.branch.3", projected=False)
    fast = sm.runtime.prepare(model, x)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-4)
    assert "1.branch" not in str(fast)
    assert "0.branch.3" in str(fast)
    sm.export(model, tmp_path / "x.pt2", "shrink", example=x)
    module = torch.export.load(tmp_path / "x.pt2").module()
    torch.testing.assert_close(module(x), model(x), rtol=1e-4, atol=1e-4)
    assert sum(value.numel() for value in module.state_dict().values()) < 320
