"""Checkpoints: strict round trips, metadata, masks from zeros, whole files or none, no pickle."""

import json
import os
import pickle
import struct
import subprocess
import sys

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError, load_checkpoint, save_checkpoint
from sparsemend.exports import checkpoint


@pytest.fixture(scope="module")
def result(digits):
    return sm.compress(
        digits.model, digits.calibration, 0.9, "erk", "activation", "variance+batchnorm"
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sparse.safetensors"


def header(path):
    """The JSON header of a safetensors file and the length of its data, read by hand."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), len(content) - 8 - length


def same_values(one, other):
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_plain_network_takes_the_keys_strictly(result, path):
    result.save(path)
    plain = sm.models.create("digits")
    metadata = load_checkpoint(plain, path)
    same_values(plain, result.model)
    assert metadata == header(path)[0]["__metadata__"]
    again = sm.models.load("digits", path)
    same_values(again.model, result.model)


def test_an_ending_of_another_format_is_told(result, tmp_path):
    with pytest.warns(sm.SparsemendWarning, match=r"a\.pt' is written as safetensors.*torch\.save"):
        result.save(tmp_path / "a.pt")
    plain = sm.models.create("digits")
    load_checkpoint(plain, tmp_path / "a.pt")
    same_values(plain, result.model)


# What somebody does who has the file alone: nothing here knows of the compression.
SCRIPT = """
import sys, safetensors.torch, torch
import sparsemend as sm
torch.set_num_threads(1)
model = sm.models.create("digits")
model.load_state_dict(safetensors.torch.load_file(sys.argv[1]), strict=True)
data = sm.data.load("digits", mean=[float(sys.argv[2])], std=[float(sys.argv[3])])
print(repr(sm.evaluate(model, data.test_batches(450)).top1))
"""


def test_scores_the_same_in_a_new_process(digits, digits_cache, result, path):
    result.save(path)
    dense = sm.models.load("digits", digits_cache / "digits.safetensors")
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), repr(dense.mean[0]), repr(dense.std[0])],
        capture_output=True,
        text=True,
        check=True,
    )
    score = sm.evaluate(result.model, digits.test).top1
    assert float(output.stdout) == score
    assert score > 0.8


def test_metadata(result, path):
    result.save(path, {"mean": "0.5", "calibration_size": 160, "rule": "something else"})
    metadata = load_checkpoint(sm.models.create("digits"), path)
    assert all(isinstance(value, str) for value in metadata.values())
    assert metadata["format"] == "sparsemend-checkpoint"
    assert metadata["sparsemend_version"] == sm.__version__
    assert (metadata["rule"], metadata["mask"]) == ("erk", "activation")
    assert (metadata["repair"], metadata["scope"]) == ("variance+batchnorm", "sequential")
    assert float(metadata["sparsity"]) == result.sparsity
    assert int(metadata["kept"]) == result.allocation.kept
    assert int(metadata["total"]) == result.allocation.total
    assert json.loads(metadata["counts"]) == dict(result.allocation)
    assert json.loads(metadata["added_biases"]) == []
    assert (metadata["mean"], metadata["calibration_size"]) == ("0.5", "160")


def test_own_facts_are_not_overwritten(result, path):
    wrong = {"format": "pt", "kept": 1, "added_biases": ["conv1"], "counts": {}}
    save_checkpoint(result.model, path, result.allocation, wrong)
    metadata = load_checkpoint(sm.models.create("digits"), path)
    assert metadata["format"] == checkpoint.FORMAT
    assert metadata["rule"] == "erk"
    assert json.loads(metadata["kept"]) == result.allocation.kept
    assert json.loads(metadata["counts"]) == dict(result.allocation)
    assert json.loads(metadata["added_biases"]) == []


def test_masks_are_in_the_zeros(result, path):
    result.save(path)
    plain = sm.models.create("digits")
    metadata = load_checkpoint(plain, path)
    masks = sm.find_masks(plain)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == json.loads(metadata["counts"])
    assert all(torch.equal(masks[name], mask) for name, mask in result.masks.items())


def test_the_file_is_tensors_and_a_json_header(result, path, monkeypatch):
    result.save(path)
    description, data = header(path)
    del description["__metadata__"]
    state = result.model.state_dict()
    assert description.keys() == state.keys()
    assert data == sum(value.numel() * value.element_size() for value in state.values())
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(path.read_bytes())

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    plain = sm.models.create("digits")
    load_checkpoint(plain, path)
    same_values(plain, result.model)


def biased(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten()
    )
    return model.append(nn.Linear(6 * 16, 5, bias=False))


def test_added_biases_round_trip(path):
    model, x = biased(), torch.randn(30, 3, 6, 6)
    result = sm.compress(model, x, 0.5, "global", repair="variance", new_biases=True)
    assert result.added_biases == ("0", "4")
    result.save(path)
    plain = biased(seed=1)
    metadata = load_checkpoint(plain, path)
    assert json.loads(metadata["added_biases"]) == ["0", "4"]
    same_values(plain, result.model)
    with torch.no_grad():
        assert torch.equal(plain(x), result.model(x))
    with pytest.raises(SparsemendError, match="a bias cannot be added to module: got '4'"):
        load_checkpoint(biased()[:3], path)


def test_tied_and_half_precision_weights_round_trip(path):
    torch.manual_seed(0)

    def tied():
        model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).bfloat16()
        model[2].weight = model[0].weight
        return model

    result = sm.compress(tied(), torch.randn(50, 6), 0.5, "global", repair="variance")
    result.save(path)
    plain = tied()
    load_checkpoint(plain, path)
    same_values(plain, result.model)
    assert plain[2].weight is plain[0].weight
    assert plain[0].weight.dtype == torch.bfloat16


def test_a_file_of_another_network(result, path):
    result.save(path, {"architecture": "digits"})
    with pytest.raises(SparsemendError) as caught:
        load_checkpoint(sm.models.create("cifar_resnet20"), path)
    assert "do not fit the model" in str(caught.value)
    assert "the file says architecture 'digits'" in str(caught.value)
    with pytest.raises(SparsemendError, match=r"fc\.weight has shape"):
        load_checkpoint(sm.models.create("digits", num_classes=7), path)
    with pytest.raises(SparsemendError, match="does not exist"):
        load_checkpoint(sm.models.create("digits"), path.with_name("other.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SparsemendError, match="not a complete safetensors file"):
        load_checkpoint(sm.models.create("digits"), path)


@pytest.mark.parametrize("existing", [True, False])
def test_a_save_that_fails_leaves_things_as_they_were(result, path, existing, monkeypatch):
    if existing:
        path.write_text("precious")

    def fail(*_):
        raise OSError("disk full")

    for target in ("pathlib.Path.replace", "safetensors.torch.save"):
        with monkeypatch.context() as patch:
            patch.setattr(target, fail)
            with pytest.raises(SparsemendError, match="disk full"):
                result.save(path)
    with pytest.raises(SparsemendError, match="metadata 'seed' cannot be stored"):
        result.save(path, {"seed": object()})
    assert [file.name for file in path.parent.iterdir()] == ([path.name] if existing else [])
    assert not existing or path.read_text() == "precious"
    result.save(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    load_checkpoint(sm.models.create("digits"), path)


def test_a_folder_that_does_not_exist(result, tmp_path):
    with pytest.raises(SparsemendError, match=r"cannot write there .*: got '.*nowhere"):
        result.save(tmp_path / "nowhere" / "sparse.safetensors")
    assert not list(tmp_path.iterdir())


SAVE = """
import sys, torch
from torch import nn
import sparsemend as sm
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
result = sm.compress(model, torch.randn(50, 6), 0.5, "erk", repair="variance")
result.save(sys.argv[1], {"mean": "0.5", "seed": 3, "facts": {"b": 1, "a": 2}})
"""


def test_the_same_run_writes_the_same_bytes(tmp_path):
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for path in paths:  # sets and dictionaries of texts have another order in each
        environment = {**os.environ, "PYTHONHASHSEED": path.stem}
        subprocess.run([sys.executable, "-c", SAVE, path], check=True, env=environment)
    assert len({path.read_bytes() for path in paths}) == 1
    names = list(header(paths[0])[0]["__metadata__"])
    assert names == sorted(names)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_pruned_weights_are_plain_zeros(path, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 5)).to(dtype)
    allocation = sm.allocate(model, 0.5, "uniform")
    pruned = sm.prune(model, allocation)
    with torch.no_grad():
        pruned[0].weight.mul_(-1)  # as a repair by a negative scale
    assert torch.signbit(pruned[0].weight[pruned[0].weight == 0]).all()
    save_checkpoint(pruned, path, allocation)
    plain = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 5)).to(dtype)
    load_checkpoint(plain, path)
    same_values(plain, pruned)
    for layer in plain:
        zeros = layer.weight[layer.weight == 0]
        assert len(zeros) == layer.weight.numel() // 2
        assert not torch.signbit(zeros).any()


def test_a_network_within_data_parallel(path):
    model, x = biased(), torch.randn(30, 3, 6, 6)
    result = sm.compress(model, x, 0.5, "global", repair="variance")
    result.save(path)
    held = nn.DataParallel(biased(seed=1))
    load_checkpoint(held, path)
    same_values(held.module, result.model)


def test_a_missing_key_leaves_the_model_as_it_was(result, tmp_path):
    state = {key: value + 1 for key, value in result.model.state_dict().items()}
    state.pop("fc.bias")
    torch.save(state, tmp_path / "w.pt")
    plain = sm.models.create("digits")
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    with pytest.raises(SparsemendError, match=r"missing keys: fc\.bias"):
        load_checkpoint(plain, tmp_path / "w.pt")
    assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())
