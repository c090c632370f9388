from __future__ import annotations

import pytest
import torch
from tests.graphs.networks import sparse_
from torch import nn

import sparsemend as sm
from sparsemend.timing import engines, machine
from sparsemend.timing.measuring import _take_turns

FEW = ("pytorch", "sparsemend")


@pytest.fixture(scope="module")
def network():
    return sparse_(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),
                                 nn.Linear(8 * 64, 10)), 0.1)  # fmt: skip


def test_engines_take_turns_and_are_compared(network):
    timing = sm.bench(network, torch.randn(2, 1, 8, 8), seconds=0.05, engines=FEW)
    assert tuple(timing.milliseconds) == FEW
    assert all(ms > 0 for ms in timing.milliseconds.values())
    dense, ours = timing.milliseconds.values()
    assert timing.speedup == dense / ours
    assert timing.rounds >= 3
    assert timing.failed == {}
    kept = sum(int(p.count_nonzero()) for p in network.parameters() if p.dim() > 1)
    assert timing.density == kept / (8 * 9 + 8 * 64 * 10)
    assert 0 < timing.packed_bytes < timing.dense_bytes
    assert timing.to_dict()["milliseconds"] == timing.milliseconds
    for name in FEW:
        assert name in str(timing)


def test_a_turn_begins_with_a_run_that_does_not_count():
    clock, calls = [0.0], []

    def engine(name):
        def run():
            calls.append(name)
            clock[0] += 1 if len(calls) > 1 and calls[-2] == name else 100

        return run

    taken = _take_turns({"a": engine("a"), "b": engine("b")}, 1e-9, lambda: clock[0])
    assert calls[:4] == ["a", "a", "b", "b"]
    assert taken == {"a": [1, 1, 1], "b": [1, 1, 1]}


def test_an_engine_that_fails_is_said_and_others_go_on(network, monkeypatch):
    def fail(_):
        raise RuntimeError("no such operator")

    monkeypatch.setitem(engines.ENGINES, "pytorch", engines.Engine("pytorch", fail))
    timing = sm.bench(network, torch.randn(1, 1, 8, 8), seconds=0.01, engines=FEW)
    assert list(timing.milliseconds) == ["sparsemend"]
    assert "no such operator" in timing.failed["pytorch"]
    assert timing.speedup is None


def test_threads_and_modes_are_as_they_were(network):
    before = torch.get_num_threads()
    network.train()
    sm.bench(network, torch.randn(1, 1, 8, 8), seconds=0.01, engines=["pytorch"], clock="cpu")
    assert torch.get_num_threads() == before
    assert network.training


def test_a_machine_with_amx_is_named(network, monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: A processor\nflags\t\t: fpu avx2 amx_bf16\n")
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    timing = sm.bench(network, torch.randn(1, 1, 8, 8), seconds=0.01, engines=FEW)
    assert "AMX" in str(timing)
    assert timing.machine.startswith("A processor")
    assert timing.to_dict()["amx"]
    assert "pytorch bfloat16" in [each.name for each in engines.ENGINES.values() if each.fits()]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"engines": ["pytorhc"]}, r"unknown engine: got 'pytorhc'.*did you mean 'pytorch'"),
        ({"clock": "sun"}, "unknown clock: got 'sun'; allowed: wall, cpu"),
        ({"threads": 0}, "threads is out of range"),
        ({"seconds": 0}, "seconds is out of range"),
    ],
)
def test_arguments_are_checked(network, arguments, text):
    with pytest.raises(sm.SparsemendError, match=text):
        sm.bench(network, torch.randn(1, 1, 8, 8), **arguments)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_other_runtimes(network, name):
    pytest.importorskip(name)
    pytest.importorskip("onnxscript")
    timing = sm.bench(network, torch.randn(1, 1, 8, 8), seconds=0.01, engines=[name])
    assert timing.failed == {}
