from __future__ import annotations

import copy
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graphs.networks import Residual, random_network, sparse_
from torch import nn

import sparsemend as sm
from sparsemend.graphs import trace
from sparsemend.runtime import instruction_sets, prepare, prepared
from sparsemend.runtime.lowering import LAYOUTS
from sparsemend.runtime.planning import plan
from sparsemend.runtime.prepared import _Kernels
from sparsemend.runtime.steps import library

pytestmark = pytest.mark.usefixtures("kernels")


def run_with(model, x, *, instructions, layout="batches", threads=1):
    """The kernels' outputs in one layout, whether or not that is the fastest."""
    graph = trace(model, x).graph
    kernels = library(instructions)
    made = plan(graph, graph.shapes([x]), kernels, layout)
    run = _Kernels(graph, made, kernels, threads)
    first, again = run([x])[0], run([x.clone()])[0]
    torch.testing.assert_close(
        first, again, rtol=0, atol=0, equal_nan=True
    )  # buffers are as they were
    return first, run


def assert_close(output, expected):
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@settings(max_examples=15)
@given(
    st.integers(0, 10**6),
    st.sampled_from(instruction_sets() or ["none"]),
    st.sampled_from(LAYOUTS),
    st.sampled_from([None, 3, 9]),
    st.sampled_from([1, 3]),
)
def test_kernels_compute_what_networks_do(seed, instructions, layout, batch, threads):
    model, x = random_network(seed)
    if batch is not None:
        x = torch.randn(batch, *x.shape[1:])
    with torch.no_grad():
        expected = model(x)
    output, _ = run_with(model, x, instructions=instructions, layout=layout, threads=threads)
    assert_close(output, expected)


@settings(max_examples=15)
@given(
    st.integers(0, 10**6),
    st.sampled_from(instruction_sets() or ["none"]),
    st.sampled_from([(8, 8), (16, 8), (12, 16)]),
    st.sampled_from([1, 3]),
)
def test_images_that_can_be_cut_into_blocks(seed, instructions, size, threads):
    model, x = random_network(seed, size=size)
    with torch.no_grad():
        expected = model(x)
    output, _ = run_with(model, x, instructions=instructions, layout="blocks", threads=threads)
    assert_close(output, expected)


@pytest.mark.parametrize("layout", ["planes", "blocks"])
@pytest.mark.parametrize("shape", [(4, 6), (17, 6), (1, 1, 6), (2, 7, 6), (2, 3, 5, 6)])
def test_linear_layers_on_any_leading_dimensions(shape, layout):
    torch.manual_seed(0)
    layers = [nn.Linear(6, 40), nn.GELU(), Residual(nn.Linear(40, 40), nn.ReLU()), nn.Linear(40, 5),
              nn.Softmax(-1)]  # fmt: skip
    model, x = sparse_(nn.Sequential(*layers), 0.3), torch.randn(shape)
    for instructions in instruction_sets():
        output, run = run_with(model, x, instructions=instructions, layout=layout)
        with torch.no_grad():
            assert_close(output, model(x))
        assert run.foreign == ()
        assert [choice.layer for choice in run.choices] == ["0", "2.branch", "3"]


def test_maxima_of_blocks_do_not_see_padding():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 2, 3, padding=1))
    x = torch.randn(1, 1, 16, 16) - 30  # zeros would be the largest
    output, _ = run_with(model.eval(), x, instructions=None, layout="blocks")
    with torch.no_grad():
        assert_close(output, model(x))


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", ["cifar_resnet20", "vgg16_bn"])
def test_built_in_networks(name, batch):
    torch.manual_seed(0)
    model = sparse_(sm.models.create(name, width=8), 0.05)
    x = torch.randn(batch, 3, 32, 32)
    fast = prepare(model, x)
    with torch.no_grad():
        assert_close(fast(x), model(x))
    assert fast.foreign == ()
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    if fast.layout != "pytorch":
        assert sorted(choice.layer for choice in fast.choices) == sorted(layers)


@pytest.mark.parametrize("activation", [nn.GELU(), nn.GELU("tanh"), nn.Tanh(), nn.SiLU(),
                                        nn.Sigmoid(), nn.Hardsigmoid(), nn.Hardswish(),
                                        nn.ReLU6(), nn.ReLU()])  # fmt: skip
@pytest.mark.parametrize("layout", LAYOUTS)
def test_activations_everywhere(activation, layout):
    x = torch.linspace(-60, 60, 4 * 3 * 20).view(4, 3, 4, 5)
    model = nn.Sequential(nn.BatchNorm2d(3), activation).eval()
    expected = model(x)
    for instructions in instruction_sets():
        output, _ = run_with(model, x, instructions=instructions, layout=layout)
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)


def test_nan_stays_nan():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(2)).eval()
    x = torch.ones(1, 1, 4, 4)
    x[0, 0, 0, 0] = torch.nan
    output, _ = run_with(model, x, instructions=instruction_sets()[0], layout="planes")
    assert torch.equal(output.isnan(), model(x).isnan())
    # Nor does it spread to the next call.
    output, _ = run_with(model, torch.ones(1, 1, 4, 4), instructions=None, layout="planes")
    assert not output.isnan().any()


def test_padding_is_zero_in_buffers_that_are_used_again():
    # Layers of one shape share buffers; each reads the zeros around the last one's output.
    layers = [nn.Conv2d(2, 2, 3, padding=1) for _ in range(6)]
    model = nn.Sequential(*(part for each in layers for part in (each, nn.Sigmoid()))).eval()
    x = torch.randn(2, 2, 7, 7)
    output, run = run_with(model, x, instructions=None, layout="planes")
    assert_close(output, model(x).detach())
    _, alone = run_with(model[:2], x, instructions=None, layout="planes")
    arenas = [each._plan.arena.nbytes for each in (run, alone)]
    assert arenas[0] < 2 * arenas[1]


def test_dense_layers_go_to_pytorch_where_that_is_faster():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()).eval()
    x = torch.randn(1, 64, 16, 16)
    fast = prepare(model, x)
    with torch.no_grad():
        assert_close(fast(x), model(x))
    assert {choice.routine for choice in fast.choices} <= {"sparse", "dense"}


def test_what_graphs_do_not_know_is_said_once_by_name():
    model = nn.Sequential(nn.Linear(6, 6), nn.ELU(), nn.Linear(6, 6), nn.ELU()).eval()
    x = torch.randn(5, 6)
    with pytest.warns(sm.SparsemendWarning, match=r"^PyTorch runs aten\.elu\.default$") as caught:
        fast = prepare(model, x)
    assert len(caught) == 1
    assert fast.foreign == ("aten.elu.default",)
    with torch.no_grad():
        assert_close(fast(x), model(x))


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x, *, scale):
        y = torch.relu(self.conv(x))
        return {"map": y, "mean": y.mean((2, 3)) + scale}


def test_arguments_and_outputs_are_those_of_the_network():
    model = TwoOutputs().eval()
    x, scale = torch.randn(2, 1, 5, 5), torch.randn(2, 2)
    fast = prepare(model, ((x,), {"scale": scale}))
    with torch.no_grad():
        expected = model(x, scale=scale)
    outputs = fast(x, scale=scale)
    assert list(outputs) == ["map", "mean"]
    for key, value in expected.items():
        assert_close(outputs[key], value)
    assert outputs["map"].data_ptr() != fast(x, scale=scale)["map"].data_ptr()


def test_a_transformer_runs():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model, x = sparse_(layer, 0.3), torch.randn(2, 5, 8)
    with pytest.warns(sm.SparsemendWarning, match="^PyTorch runs .*native_layer_norm") as caught:
        fast = prepare(model, x)
    assert len(caught) == 1
    assert "linear" not in fast.foreign
    with torch.no_grad():
        assert_close(fast(x), model(x))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda fast: fast(torch.ones(2, 3)), r"input has another shape: got \(2, 3\)"),
        (lambda fast: fast("x"), r"input has another shape: got 'str'"),
        (
            lambda fast: fast(torch.ones(1, 3), 1),
            r"like those of the example: got '\(tensor, t.*allowed: \(tensor\)",
        ),
    ],
)
def test_other_inputs_are_refused(call, text):
    fast = prepare(nn.Linear(3, 2), torch.ones(1, 3))
    with pytest.raises(sm.SparsemendError, match=text):
        call(fast)


def test_arguments_are_checked():
    with pytest.raises(sm.SparsemendError, match="threads is out of range"):
        prepare(nn.Linear(3, 2), torch.ones(1, 3), threads=0)
    with pytest.raises(sm.SparsemendError, match="no such instruction set here: got 'sse9'"):
        prepare(nn.Linear(3, 2), torch.ones(1, 3), instructions="sse9")


def test_calls_from_threads_do_not_mix():
    model = sparse_(sm.models.create("cifar_resnet20", width=4), 0.5)
    inputs = [torch.randn(1, 3, 32, 32) for _ in range(4)]
    fast = prepare(model, inputs[0])
    with torch.no_grad():
        expected = [model(x) for x in inputs]
    wrong = []

    def work(index):
        for _ in range(10):
            if not torch.allclose(fast(inputs[index]), expected[index], rtol=1e-3, atol=1e-3):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_without_the_kernels_everything_works(monkeypatch):
    monkeypatch.setattr(prepared, "library", lambda _: None)
    model, x = random_network(3)
    with pytest.warns(sm.SparsemendWarning, match=r"python -m sparsemend\.runtime\.build"):
        fast = prepare(copy.deepcopy(model), x)
    with torch.no_grad():
        assert_close(fast(x), model(x))
    assert fast.layout == "pytorch"
