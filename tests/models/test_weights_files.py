"""Loading: weights files of every kind, factories, and the errors they give."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sparsemend.errors import SparsemendError
from sparsemend.models import create, load
from sparsemend.models.weights import add_biases, save_weights

NETWORK = "cifar_resnet20"


@pytest.fixture
def network() -> nn.Module:
    return create(NETWORK, num_classes=6, width=4).eval()


@pytest.fixture
def weights(network: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    metadata = {"mean": ".5,.25,.125", "std": "0.1, 0.2, 0.3", "architecture": "resnet20"}
    save_weights(path, network.state_dict(), metadata)
    return path


def _assert_same(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_size_and_normalisation_come_from_the_file(network: nn.Module, weights: Path) -> None:
    loaded = load(NETWORK, weights)
    _assert_same(loaded.model, network)
    assert not loaded.model.training
    assert loaded.name == NETWORK
    assert loaded.metadata["architecture"] == "resnet20"
    assert loaded.mean == (0.5, 0.25, 0.125)
    assert loaded.std == (0.1, 0.2, 0.3)


def test_size_of_every_family_is_inferred(tmp_path: Path) -> None:
    for name in ("vgg16_bn", "cifar_resnet50", "digits"):
        model = create(name, num_classes=3, width=2)
        save_weights(tmp_path / "w.safetensors", model.state_dict(), {})
        _assert_same(load(name, str(tmp_path / "w.safetensors")).model, model)


def test_the_content_says_what_a_file_is(network: nn.Module, tmp_path: Path) -> None:
    save_weights(tmp_path / "weights.pt", network.state_dict(), {"width": "4"})
    _assert_same(load(NETWORK, tmp_path / "weights.pt").model, network)


@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_torch_files(network: nn.Module, tmp_path: Path, nested: str | None, prefix: str) -> None:
    state = {prefix + key: value for key, value in network.state_dict().items()}
    path = tmp_path / "weights.pt"
    torch.save({nested: state, "epoch": 3} if nested else state, path)
    loaded = load(NETWORK, path)
    _assert_same(loaded.model, network)
    assert loaded.metadata == {}
    assert loaded.mean is None
    assert loaded.std is None


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SparsemendError, match=r"nowhere\.safetensors' does not exist"):
        load(NETWORK, tmp_path / "nowhere.safetensors")


def test_half_written_files(network: nn.Module, weights: Path, tmp_path: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(SparsemendError, match="not a complete safetensors file"):
        load(NETWORK, weights)
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SparsemendError, match="cannot be read as tensors alone"):
        load(NETWORK, path)


class _Trap:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_pickles_are_never_run(network: nn.Module, tmp_path: Path) -> None:
    path, trap = tmp_path / "weights.pt", tmp_path / "sprung"
    path.write_bytes(pickle.dumps({"weight": _Trap(trap)}, protocol=2))
    with pytest.raises(SparsemendError, match="never loaded"):
        load(NETWORK, path)
    torch.save(network, path)
    with pytest.raises(SparsemendError, match=r"save model\.state_dict\(\) instead"):
        load(NETWORK, path)
    assert not trap.exists()


def test_file_without_a_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "weights.pt")
    with pytest.raises(SparsemendError, match="holds no state dict"):
        load(NETWORK, tmp_path / "weights.pt")


def test_missing_and_unexpected_keys_are_named(network: nn.Module, tmp_path: Path) -> None:
    state = dict(network.state_dict())
    state["extra.weight"] = state.pop("layer1.0.conv1.weight")
    path = tmp_path / "weights.safetensors"
    save_file(state, path, {"architecture": "odd_net"})
    with pytest.raises(SparsemendError) as caught:
        load(NETWORK, path)
    text = str(caught.value)
    assert "missing keys: layer1.0.conv1.weight" in text
    assert "unexpected keys: extra.weight" in text
    assert "the file says architecture 'odd_net'" in text


def test_only_the_first_keys_are_named(weights: Path) -> None:
    with pytest.raises(
        SparsemendError, match=r"missing keys: \S+, \S+, \S+ and \d+ more"
    ) as caught:
        load("cifar_resnet32", weights)
    assert len(str(caught.value)) < 600


def test_other_shapes_are_named(weights: Path) -> None:
    text = r"fc\.weight has shape \(6, 16\) in place of \(9, 16\)"
    with pytest.raises(SparsemendError, match=text):
        load(NETWORK, weights, num_classes=9)
    with pytest.raises(SparsemendError, match=r"conv1\.weight has shape"):
        load(NETWORK, weights, width=5)


@pytest.mark.parametrize("text", ["a,b,c", "", "nan,1,1"])
def test_unreadable_mean(network: nn.Module, tmp_path: Path, text: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, network.state_dict(), {"mean": text})
    with pytest.raises(SparsemendError, match=r"metadata 'mean' of .*one number per channel"):
        load(NETWORK, path)


def test_built_in_without_weights() -> None:
    with pytest.raises(SparsemendError, match="'vgg16_bn' has no weights of its own"):
        load("vgg16_bn")
    with pytest.raises(SparsemendError, match="unknown model"):
        load("vgg17_bn")


def test_added_biases_round_trip(network: nn.Module, tmp_path: Path) -> None:
    names = ["conv1", "layer2.0.downsample.0"]
    add_biases(network, names)
    with torch.no_grad():
        network.get_submodule("conv1").bias.fill_(0.5)
    path = tmp_path / "weights.safetensors"
    save_weights(path, network.state_dict(), {"added_biases": json.dumps(names)})
    loaded = load(NETWORK, path).model
    _assert_same(loaded, network)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), network(images))


def test_added_bias_of_zeros_changes_nothing() -> None:
    model = nn.Sequential(
        nn.ConvTranspose2d(2, 4, 3, groups=2, bias=False), nn.Flatten(), nn.LazyLinear(3)
    )
    images = torch.randn(2, 2, 5, 5)
    before = model(images)
    kept = model[2].bias
    add_biases(model, ["0", "2"])
    assert model[0].bias.shape == (4,)
    assert model[2].bias is kept
    torch.testing.assert_close(model(images), before)


@pytest.mark.parametrize("text", ["conv1", '{"conv1": 1}', "[1]"])
def test_unreadable_added_biases(network: nn.Module, tmp_path: Path, text: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, network.state_dict(), {"added_biases": text})
    with pytest.raises(SparsemendError, match=r"'added_biases' of .*a JSON list of module names"):
        load(NETWORK, path)


@pytest.mark.parametrize("name", ["nowhere", "bn1.nowhere", "layer1", "relu"])
def test_bias_for_no_layer(network: nn.Module, name: str) -> None:
    with pytest.raises(SparsemendError, match=f"cannot be added to module: got '{name}'"):
        add_biases(network, [name])


FACTORIES = """
from torch import nn

def plain():
    return nn.Linear(3, 2)

def sized(num_classes=4, **options):
    assert not options
    return nn.Linear(3, num_classes)

def failing():
    raise RuntimeError("no such thing")

def number():
    return 3

constant = 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder; the name is new each time, as imports are cached."""
    name = f"factories_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    return name


def test_factory_with_its_own_weights(factories: str) -> None:
    loaded = load(f"{factories}:plain")
    assert isinstance(loaded.model, nn.Linear)
    assert not loaded.model.training
    assert loaded.mean is None
    assert load(f"{factories}:sized", num_classes=9).model.out_features == 9


def test_factory_with_a_weights_file(factories: str, tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    save_weights(tmp_path / "w.safetensors", model.state_dict(), {})
    _assert_same(load(f"{factories}:plain", "w.safetensors").model, model)
    with pytest.raises(SparsemendError, match="weight has shape"):
        load(f"{factories}:sized", "w.safetensors")


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        (":nowhere", "cannot be imported: AttributeError"),
        ("_not_there:plain", "cannot be imported: ModuleNotFoundError"),
        (":constant", "is not callable: got 3"),
        (":number", "returned no module: got 'int'"),
        (":failing", "failed when called with .*RuntimeError: no such thing"),
        (":", "model is written wrong"),
    ],
)
def test_factory_errors(factories: str, attribute: str, text: str) -> None:
    with pytest.raises(SparsemendError, match=text):
        load(factories + attribute)


def test_factory_that_takes_no_size(factories: str) -> None:
    with pytest.raises(SparsemendError, match="takes no num_classes: got 5"):
        load(f"{factories}:plain", num_classes=5)


def test_saving_leaves_nothing_half_written(network: nn.Module, tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", network.state_dict(), {})
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("cifar10_resnet20", 10),
        ("cifar10_resnet56", 10),
        ("cifar100_resnet20", 100),
        ("cifar100_resnet56", 100),
    ],
)
def test_real_networks_load(shared_data: Path, name: str, classes: int) -> None:
    model = f"cifar_{name.partition('_')[2]}"
    loaded = load(model, shared_data / "weights" / f"{name}.safetensors")
    assert loaded.model.fc.out_features == classes
    assert loaded.mean is not None
    assert loaded.std is not None
    assert len(loaded.mean) == len(loaded.std) == 3
