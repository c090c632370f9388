from __future__ import annotations

import json
import math
import zlib

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graphs.networks import random_network, sparse_
from torch import nn

import sparsemend as sm
from sparsemend.graphs import trace
from sparsemend.packed import pack, planes, read_packed, rice


@given(st.sets(st.integers(0, 5000)), st.integers(0, 100))
def test_rice_codes_come_back(positions, beyond):
    found = np.array(sorted(positions), dtype=np.int64)
    size = (max(positions) if positions else 0) + 1 + beyond
    coded = rice.encode(found)
    assert len(coded.content) == rice.length(coded.low, coded.unary, len(found))
    np.testing.assert_array_equal(rice.decode(coded, count=len(found), size=size), found)


@pytest.mark.parametrize("density", [0.01, 0.03, 0.05, 0.1, 0.3])
def test_positions_and_values_take_their_entropy(density, tmp_path):
    torch.manual_seed(0)
    size, kept = 200_000, int(200_000 * density)
    weight = torch.zeros(size)
    weight[torch.randperm(size)[:kept]] = torch.randn(kept)
    file = (tmp_path / "a.packed").write_bytes(pack({"weight": weight}))
    positions = (math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)) / (
        8 * math.log(2)
    )
    assert file <= 1.05 * (positions + 2 * kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_come_back(dtype):
    values = torch.cat([torch.randn(999), torch.tensor([0.0, -0.0, 1e-7, 65504.0])]).to(dtype)
    lengths, content = planes.encode(values)
    assert len(content) < values.element_size() * len(values)
    back = planes.decode(lengths, content, dtype, len(values))
    assert torch.equal(back.view(torch.uint8), values.view(torch.uint8))


@given(st.integers(0, 10**6), st.integers(0, 60))
def test_few_values_come_back(seed, count):
    values = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(planes.decode(*planes.encode(values), torch.float32, count), values)


@settings(max_examples=8)
@given(st.integers(0, 10**6))
def test_graphs_come_back(tmp_path_factory, seed):
    model, x = random_network(seed)
    graph = trace(model, x).graph
    path = tmp_path_factory.mktemp("packed") / "a.packed"
    path.write_bytes(pack(graph, dtype="float32", metadata={"author": "me"}))
    packed = read_packed(path)
    assert packed.metadata["author"] == "me"
    assert str(packed.graph) == str(graph)
    torch.testing.assert_close(packed.graph.run(x), graph.run(x), rtol=0, atol=0)


def test_a_state_dict_loads_strictly(tmp_path):
    model = sparse_(sm.models.create("cifar_resnet20", width=4), 0.1)
    sm.export(model, tmp_path / "a.packed", dtype="float32")
    packed = read_packed(tmp_path / "a.packed")
    assert packed.graph is None
    other = sm.models.create("cifar_resnet20", width=4).eval()
    other.load_state_dict(packed.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(other(x), model(x))
    with pytest.raises(sm.SparsemendError, match="holds the weights alone"):
        sm.runtime.load(tmp_path / "a.packed")


def test_the_runtime_loads_it_for_any_batch(tmp_path):
    model = sparse_(sm.models.create("cifar_resnet20", width=4), 0.1)
    x = torch.randn(2, 3, 32, 32)
    done = sm.export(model, tmp_path / "a.packed", example=x)
    assert done.error < 0.02
    assert done.size < 0.2 * done.dense_size
    more = torch.cat([x, x, x])
    for given_, example in ((x, None), (more, more)):
        output = sm.runtime.load(tmp_path / "a.packed", example)(given_)
        torch.testing.assert_close(output, model(given_).detach(), rtol=0.05, atol=0.05)


def test_a_network_of_tokens_loads_without_an_example(tmp_path):
    class Picks(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.linear = nn.Embedding(9, 4), nn.Linear(4, 5)

        def forward(self, tokens):
            return self.linear(self.embedding(tokens)).gather(1, tokens[:, None] % 5)

    model, tokens = Picks().eval(), torch.tensor([1, 2, 3])
    sm.export(model, tmp_path / "a.packed", example=tokens, dtype="float32")
    with pytest.warns(sm.SparsemendWarning, match=r"PyTorch runs aten\.embedding"):
        loaded = sm.runtime.load(tmp_path / "a.packed")
    torch.testing.assert_close(loaded(tokens), model(tokens))


def packed_parts(tmp_path):
    """A good file's tensors and index, to be spoiled."""
    path = tmp_path / "a.packed"
    graph = trace(
        sparse_(nn.Sequential(nn.Linear(40, 40), nn.ReLU()), 0.2), torch.ones(1, 40)
    ).graph
    path.write_bytes(pack(graph))
    tensors = safetensors.torch.load_file(path)
    index = json.loads(zlib.decompress(tensors["index"].numpy().tobytes()))
    return path, tensors, index


def spoil(tmp_path, change):
    path, tensors, index = packed_parts(tmp_path)
    change(index, tensors)
    text = zlib.compress(json.dumps(index).encode())
    tensors["index"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    facts = {"format": "sparsemend-packed", "format_version": "1"}
    safetensors.torch.save_file(tensors, path, facts)
    return path


def first(index):
    return index["tensors"][0]


HOSTILE = {
    "huge": lambda i, _: first(i).update(shape=[2**20, 2**20]),
    "negative": lambda i, _: first(i).update(shape=[-4, 40]),
    "too many kept": lambda i, _: first(i).update(kept=10**6),
    "too few kept": lambda i, _: first(i).update(kept=first(i)["kept"] - 1),
    "other low bits": lambda i, _: first(i).update(low=30),
    "smaller than its positions": lambda i, _: first(i).update(shape=[1, 40]),
    "another field": lambda i, _: i["graph"]["nodes"][0][3].update(code="import os"),
    "unknown operation": lambda i, _: i["graph"]["nodes"][0].__setitem__(1, "eval"),
    "unknown activation": lambda i, _: i["graph"]["nodes"][1][3].update(function="system"),
    "value from nowhere": lambda i, _: i["graph"]["nodes"][0].__setitem__(2, ["ghost"]),
    "same name twice": lambda i, _: i["graph"]["nodes"].append(i["graph"]["nodes"][0]),
    "tensor from nowhere": lambda i, _: i["graph"]["nodes"][0][3].update(weight={"tensor": 99}),
    "a function that reads files": lambda i, _: i["graph"]["nodes"].__setitem__(
        1, ["x", "torch", ["input"], {"target": "aten.from_file.default",
                                      "arguments": ["/etc/passwd"], "keywords": []}]),
    "a function in place": lambda i, _: i["graph"]["nodes"].__setitem__(
        1, ["x", "torch", ["input"], {"target": "aten.relu_.default",
                                      "arguments": [{"slot": 0}], "keywords": []}]),
    "values cut": lambda _, t: t.update(values=t["values"][:-3].clone()),
    "a tensor more": lambda _, t: t.update(extra=torch.zeros(1, dtype=torch.uint8)),
    "another type": lambda i, _: i.update(dtype="float64"),
    "no tensors": lambda i, _: i.pop("tensors"),
}  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused(tmp_path, change):
    with pytest.raises(sm.SparsemendError, match="is damaged"):
        read_packed(spoil(tmp_path, change))


def test_an_index_that_explodes_is_refused(tmp_path):
    path, tensors, _ = packed_parts(tmp_path)
    bomb = bytearray(zlib.compress(b" " * (65 * 2**20)))
    tensors["index"] = torch.frombuffer(bomb, dtype=torch.uint8)
    facts = {"format": "sparsemend-packed", "format_version": "1"}
    safetensors.torch.save_file(tensors, path, facts)
    with pytest.raises(sm.SparsemendError, match="too long"):
        read_packed(path)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_changed_byte_is_no_crash(tmp_path_factory, place, byte):
    path, _, _ = packed_parts(tmp_path_factory.mktemp("packed"))
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content)
    try:
        packed = read_packed(path)
    except sm.SparsemendError:
        return
    for tensor in packed.state_dict().values():
        assert tensor.isfinite().all()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(sm.SparsemendError, match="no such packed file"):
        read_packed(tmp_path / "none.packed")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(sm.SparsemendError, match="no packed network"):
        read_packed(tmp_path / "plain.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(sm.SparsemendError, match="is damaged"):
        read_packed(tmp_path / "text")


def test_values_must_fit_their_type(tmp_path):
    model = nn.Linear(1, 1)
    model.weight.data.fill_(1e6)
    with pytest.raises(sm.SparsemendError, match="too large for the type"):
        sm.export(model, tmp_path / "a.packed", example=torch.ones(1, 1))
    assert not list(tmp_path.iterdir())
    sm.export(model, tmp_path / "a.packed", example=torch.ones(1, 1), dtype="bfloat16")
    with pytest.raises(sm.SparsemendError, match="unknown type of values: got 'float61'"):
        sm.export(model, tmp_path / "a.packed", dtype="float61")


def test_arguments_of_export_are_checked(tmp_path):
    with pytest.raises(sm.SparsemendError, match=r"unknown format: got 'paked'.*'packed'"):
        sm.export(nn.Linear(1, 1), tmp_path / "a", "paked")
    with pytest.raises(sm.SparsemendError, match=r"another ending: got '.*a\.txt'; .*\.packed"):
        sm.export(nn.Linear(1, 1), tmp_path / "a.txt")
