"""Checkpoints as the field's training programs write them, and files that do not fit."""

from __future__ import annotations

import argparse
import copy
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from sparsemend import SparsemendError, SparsemendWarning, load_checkpoint
from sparsemend.models.weights import load_weights, read_weights, save_weights

State = dict[str, Tensor]


class Tied(nn.Module):
    """Two layers that share a weight, one with a BatchNorm, one without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.c = nn.Linear(4, 2, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(self.norm(self.b(self.a(x).relu())))
        return out


def network(seed: int = 0) -> Tied:
    torch.manual_seed(seed)
    return Tied().eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def state_of(model: nn.Module) -> State:
    return {key: value.clone() for key, value in model.state_dict().items()}


def load_into(model: nn.Module, path: Path) -> None:
    load_checkpoint(model, path)


NESTINGS: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "ordered": lambda state: OrderedDict(state),
    "net": lambda state: {"net": state, "acc": 93.1, "epoch": 9},
    "state_dict": lambda state: {"state_dict": state, "epoch": 1, "best": torch.tensor(0.9)},
    "model": lambda state: {"model": state, "lr_scheduler": {"last_epoch": 3}},
    "model_state_dict": lambda state: {"epoch": 1, "model_state_dict": state, "loss": 0.1},
    "with an optimiser": lambda state: {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    },
    "its settings too": lambda state: {"model": {"depth": 3}, "state_dict": state},
    "averaged alone": lambda state: {"state_dict_ema": state, "epoch": 3},
    "an unusual key": lambda state: {"student": state, "epoch": 3},
    "two levels": lambda state: {"checkpoint": {"state_dict": state}, "epoch": 3},
}
WRAPPERS = ("", "module.", "model.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.",
            "model.module.", "net.", "_forward_module.model.")  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("nesting", NESTINGS)
def test_wherever_the_state_is(tmp_path: Path, nesting: str, wrapper: str) -> None:
    net, other = network(), network(1)
    path = tmp_path / "w.pt"
    torch.save(NESTINGS[nesting]({wrapper + k: v for k, v in state_of(net).items()}), path)
    load_into(other, path)
    assert same(net, other)


@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, nn.Sequential, copy.deepcopy])
@pytest.mark.parametrize("target", [nn.DataParallel, AveragedModel, copy.deepcopy])
def test_wrappers_on_either_side(
    tmp_path: Path, wrap: Callable[..., nn.Module], target: Callable[..., nn.Module]
) -> None:
    net, other = network(), network(1)
    saved = wrap(net)
    state = saved.state_dict()
    if wrap is nn.Sequential:  # a wrapper that nobody knows
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(SparsemendError, match="missing keys"):
            load_into(target(other), tmp_path / "w.pt")
        return
    torch.save(state, tmp_path / "w.pt")
    held = target(other)
    load_into(held, tmp_path / "w.pt")
    inner = held if target is copy.deepcopy else held.module
    assert isinstance(inner, Tied)
    assert same(inner, net)
    if wrap is target is AveragedModel:
        assert held.n_averaged == saved.n_averaged


def test_parts_that_are_compiled(tmp_path: Path) -> None:
    state = {k.replace("c.", "c._orig_mod."): v for k, v in state_of(network()).items()}
    torch.save(state, tmp_path / "w.pt")
    other = network(1)
    load_into(other, tmp_path / "w.pt")
    assert same(other, network())


def test_a_network_whose_own_parts_are_called_as_wrappers(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.ModuleDict({"module": nn.Linear(3, 3), "net": nn.Linear(3, 3)})

    net, other = Own(), Own()
    torch.save({f"module.{k}": v for k, v in net.state_dict().items()}, tmp_path / "w.pt")
    load_into(other, tmp_path / "w.pt")
    assert same(net, other)


def test_what_is_averaged_is_taken_where_nothing_else_is_there(tmp_path: Path) -> None:
    path, other = tmp_path / "w.pt", network(2)
    torch.save({"state_dict": state_of(network()), "state_dict_ema": state_of(network(1))}, path)
    with pytest.warns(SparsemendWarning, match="under 'state_dict_ema'; those under 'state_dict'"):
        load_into(other, path)
    assert same(other, network())


def test_several_state_dicts_without_a_usual_name(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"student": state_of(network()), "teacher": state_of(network(1))}, path)
    with pytest.raises(SparsemendError, match=r"several state dicts: got \['student', 'teacher'\]"):
        read_weights(path)


def test_a_mapping_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, object] = {"x": torch.ones(1)}
    content["model"] = {"model": content, "deeper": content}
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(SparsemendError, match="holds no state dict"):
        read_weights(tmp_path / "w.pt")


def test_what_save_model_leaves_out(tmp_path: Path) -> None:
    net, other = network(), network(1)
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_model(net, str(path))
    with safe_open(path, "pt") as file:
        assert len(file.keys()) < len(net.state_dict())
    load_into(other, path)
    assert same(net, other)
    assert other.b.weight is other.a.weight
    untied = network(1)
    untied.b.weight = nn.Parameter(torch.zeros(4, 4))
    load_into(untied, path)  # the header says which tensor stands for which
    assert torch.equal(untied.b.weight, net.a.weight)
    state, _ = read_weights(path)
    safetensors.torch.save_file({f"module.{k}": v for k, v in state.items()}, path)
    load_into(network(1), path)


def test_tensors_that_are_shared_and_differ_in_the_file(tmp_path: Path) -> None:
    state = state_of(network())
    state["b.weight"] += 1
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(SparsemendError, match=r"what the model shares: a\.weight and b\.weight"):
        load_into(network(), tmp_path / "w.pt")
    state["b.weight"] = state["a.weight"].clone()
    for key in ("a.weight", "b.weight"):
        state[key][0, 0] = float("nan")
    torch.save(state, tmp_path / "w.pt")
    load_into(network(), tmp_path / "w.pt")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_masks_of_torch_prune_are_applied(tmp_path: Path, prefix: str) -> None:
    net, other = network(), network(1)
    prune.l1_unstructured(net.c, "weight", 0.5)
    prune.random_unstructured(net.a, "bias", 0.5)
    torch.save({prefix + k: v for k, v in net.state_dict().items()}, tmp_path / "w.pt")
    load_into(other, tmp_path / "w.pt")
    assert torch.equal(other.c.weight, net.c.weight)
    assert torch.equal(other.a.bias, net.a.bias)
    assert int((other.c.weight == 0).sum()) == 4
    assert not torch.signbit(other.c.weight[other.c.weight == 0]).any()
    pruned = network(1)
    prune.identity(pruned.c, "weight")
    prune.identity(pruned.a, "bias")
    load_into(pruned, tmp_path / "w.pt")
    assert torch.equal(pruned.c.weight_mask, net.c.weight_mask)


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (parametrizations.weight_norm, "a parametrization: .*remove_parametrizations"),
        (parametrizations.orthogonal, "a parametrization: .*remove_parametrizations"),
        (nn.utils.spectral_norm, r"a spectral norm: .*remove_spectral_norm\(module\)"),
        (nn.utils.weight_norm, r"a weight norm: .*remove_weight_norm\(module\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_are_written_otherwise_are_refused_by_name(
    tmp_path: Path, write: Callable[[nn.Module], object], text: str
) -> None:
    net = network()
    write(net.c)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    for file, model in (("w.pt", network(1)), ("plain.pt", net)):
        torch.save(network().state_dict(), tmp_path / "plain.pt")
        before = state_of(model)
        with pytest.raises(SparsemendError, match=text):
            load_into(model, tmp_path / file)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    again = network(1)
    write(again.c)
    load_into(again, tmp_path / "w.pt")
    assert same(again, net)


def test_half_precision_and_sparse_tensors(tmp_path: Path) -> None:
    net = network()
    state = {k: v.half().to_sparse() if v.ndim == 2 else v.half() for k, v in state_of(net).items()}
    state["norm.num_batches_tracked"] = state["norm.num_batches_tracked"].float()
    torch.save(state, tmp_path / "w.pt")
    other = network(1)
    load_into(other, tmp_path / "w.pt")
    assert torch.equal(other.c.weight, net.c.weight.half().float())
    assert other.c.weight.dtype == torch.float32
    del state["norm.num_batches_tracked"]  # PyTorch before 0.4.1
    torch.save(state, tmp_path / "w.pt")
    load_into(other, tmp_path / "w.pt")


def without(key: str) -> Callable[[State], State]:
    return lambda state: {k: v for k, v in state.items() if k != key}


def with_(key: str, value: object) -> Callable[[State], State]:
    return lambda state: {**state, key: value}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("change", "metadata", "text"),
    [
        (without("c.weight"), {}, r"missing keys: c\.weight"),
        (with_("d.weight", torch.ones(2)), {}, r"unexpected keys: d\.weight"),
        (with_("c.weight", torch.ones(3, 4)), {}, r"c\.weight has shape \(3, 4\)"),
        (with_("c.weight", torch.ones(2, 4, dtype=torch.int8)), {}, r"c\.weight has torch\.int8"),
        (with_("c.weight", torch.ones(2, 4) * 1j), {}, r"c\.weight has torch\.complex64"),
        (without("c.weight"), {"added_biases": '["c"]'}, r"missing keys: c\.weight, c\.bias|c\.b"),
        (dict, {"added_biases": '["c"]'}, r"missing keys: c\.bias"),
        (dict, {"added_biases": '["c", "nowhere"]'}, "cannot be added to module: got 'nowhere'"),
        (dict, {"added_biases": "[" * 100_000}, "does not fit: got '.{0,170}'; allowed: a JSON"),
        (dict, {"added_biases": '{"c": 1}'}, "a JSON list of module names"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(
    tmp_path: Path, change: Callable[[State], State], metadata: dict[str, str], text: str
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, change(state_of(network(1))), metadata)
    model = network()
    before, tensors = state_of(model), [id(p) for p in model.parameters()]
    with pytest.raises(SparsemendError, match=text) as caught:
        load_into(model, path)
    assert len(str(caught.value)) < 1000
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert [id(p) for p in model.parameters()] == tensors
    assert model.c.bias is None


def test_a_model_that_fails_while_it_loads_is_left_as_it_was() -> None:
    model = network()
    before = state_of(model)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    model.register_load_state_dict_post_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        load_weights(
            model,
            {**state_of(network(1)), "c.bias": torch.ones(2)},
            source="x",
            metadata={"added_biases": '["c"]'},
        )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.c.bias is None


def test_keys_that_only_the_models_hooks_know() -> None:
    model = network()

    def rename(_module: object, state: State, *_: object) -> None:
        if "old.weight" in state:
            state["c.weight"] = state.pop("old.weight")

    model.register_load_state_dict_pre_hook(rename)
    state = state_of(network(1))
    state["old.weight"] = state.pop("c.weight")
    load_weights(model, state, source="x")
    assert same(model, network(1))


def test_models_without_values(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    for model in (nn.LazyLinear(2), nn.Linear(2, 2, device="meta")):
        with pytest.raises(SparsemendError, match="layers without values"):
            load_into(model, tmp_path / "w.pt")


@pytest.mark.parametrize("wrap", [nn.DataParallel, copy.deepcopy])
@pytest.mark.parametrize("target", [nn.DataParallel, copy.deepcopy])
def test_added_biases_under_wrappers(
    tmp_path: Path, wrap: Callable[..., nn.Module], target: Callable[..., nn.Module]
) -> None:
    net = network()
    net.c.bias = nn.Parameter(torch.ones(2))
    saved = wrap(net)
    name = "c" if saved is not net and wrap is copy.deepcopy else "module.c"
    path = tmp_path / "w.safetensors"
    save_weights(path, saved.state_dict(), {"added_biases": f'["{name}"]'})
    held = target(network(1))
    load_into(held, path)
    inner = held if target is copy.deepcopy else held.module
    assert isinstance(inner, Tied)
    assert same(inner, net)


def test_ten_thousand_names_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    names = ", ".join(f'"{"x" * 5000}{i}"' for i in range(10_000))
    save_weights(path, state_of(network()), {"added_biases": f"[{names}]"})
    with pytest.raises(SparsemendError, match="cannot be added") as caught:
        load_into(network(), path)
    assert len(str(caught.value)) < 1000


# ------------------------------------------------------------------- files that hold no tensors


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def write_namespace(path: Path) -> None:
    torch.save({"model": state_of(network()), "args": argparse.Namespace(lr=1)}, path)


def write_model(path: Path) -> None:
    torch.save(network(), path)


def write_trap(path: Path) -> None:
    torch.save({"state_dict": state_of(network()), "x": Trap(path.with_name("sprung"))}, path)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Trap(path.with_name("sprung"))}, protocol=2))


def write_script(path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(path))  # type: ignore[no-untyped-call]


def write_text(path: Path) -> None:
    path.write_text("hello")


def write_nothing(path: Path) -> None:
    path.touch()


def write_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_namespace, r"holds a argparse\.Namespace, which is code"),
        (write_model, r"Tied, which is code"),
        (write_trap, "which is code"),
        (write_pickle, "which is code"),
        (write_script, "it is a TorchScript program"),
        (write_text, "cannot be read"),
        (write_nothing, "cannot be read"),
        (write_archive, "cannot be read"),
    ],
)
def test_nobody_is_told_to_run_what_is_in_a_file(
    tmp_path: Path, write: Callable[[Path], None], reason: str, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "w.pt"
    write(path)
    recwarn.clear()
    with pytest.raises(SparsemendError, match=reason) as caught:
        read_weights(path)
    assert not [str(warning.message) for warning in recwarn.list]
    text = str(caught.value).replace("as torch.load(weights_only=True) reads it", "")
    assert "weights_only" not in text
    assert "trust" not in text
    assert not (tmp_path / "sprung").exists()


def test_an_archive_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(state_of(network()), path)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24
    content[place : place + 4] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(content)
    with pytest.raises(SparsemendError, match="claims more bytes than the file holds"):
        read_weights(path)


def test_a_folder_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(SparsemendError, match="is no file"):
        read_weights(tmp_path)


# --------------------------------------------------------------------------- files that go out


@given(
    st.dictionaries(
        st.text('ab.0\n"é\x1b', min_size=1, max_size=5).filter(lambda key: key != "__metadata__"),
        st.lists(st.integers(0, 3), max_size=3),
        max_size=4,
    ),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5),
    st.sampled_from([torch.float32, torch.float16, torch.uint8, torch.float64]),
)
def test_safetensors_reads_what_is_written(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: dict[str, list[int]],
    metadata: dict[str, str],
    dtype: torch.dtype,
) -> None:
    path = tmp_path_factory.mktemp("out") / "w.safetensors"
    state = {key: torch.ones(shape).to(dtype) * 3 for key, shape in shapes.items()}
    save_weights(path, state, metadata)
    with safe_open(path, "pt") as file:
        assert (file.metadata() or {}) == metadata
        assert set(file.keys()) == set(state)
        for key, value in state.items():
            assert torch.equal(file.get_tensor(key), value)
    content = path.read_bytes()
    assert struct.unpack_from("<Q", content)[0] % 8 == 0
    save_weights(path, state, dict(reversed(metadata.items())))
    assert path.read_bytes() == content


SAVE = """
import sys, torch
from pathlib import Path
from sparsemend.models.weights import save_weights
state = {f"layer{i}.weight": torch.arange(5.0) + i for i in range(5)}
save_weights(Path(sys.argv[1]), state, {f"key{i}": str(i) for i in range(20)})
"""


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(2)]
    for path in paths:  # sets and dictionaries of texts have another order in each
        environment = {**os.environ, "PYTHONHASHSEED": path.stem}
        subprocess.run([sys.executable, "-c", SAVE, path], check=True, env=environment)
    assert len({path.read_bytes() for path in paths}) == 1


def test_a_state_with_more_than_tensors(tmp_path: Path) -> None:
    with pytest.raises(SparsemendError, match=r"more than tensors: got \['x'\]"):
        save_weights(tmp_path / "w", {"x": 3}, {})  # type: ignore[dict-item]
    assert not list(tmp_path.iterdir())
