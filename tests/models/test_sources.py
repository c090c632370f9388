"""Networks from libraries and files: with random weights, and nothing fetched without consent."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsemend.data.preprocessing import Preprocessing
from sparsemend.errors import SparsemendError
from sparsemend.models import load
from sparsemend.models.sources import registry
from sparsemend.models.weights import save_weights


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever connects fails the test; caches are empty."""

    def connect(*_: object) -> None:
        pytest.fail("something was to be downloaded")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("spec", "source", "name"),
    [
        ("digits", "built-in", "digits"),
        ("timm:vit_tiny", "timm", "vit_tiny"),
        ("torchvision:resnet18", "torchvision", "resnet18"),
        ("hf:org/name#AutoModel", "hf", "org/name#AutoModel"),
        ("package.module:make", "factory", "package.module:make"),
        ("folder/mynet.py:make", "factory", "folder/mynet.py:make"),
    ],
)
def test_how_a_name_begins_says_where_it_comes_from(spec: str, source: str, name: str) -> None:
    assert registry.find_source(spec) == (registry.SOURCES[source], name)


@pytest.mark.parametrize(
    ("package", "spec", "extra"),
    [
        ("timm", "timm:resnet18", "timm"),
        ("torchvision.models", "torchvision:resnet18", "timm"),
        ("transformers", "hf:some/name", "hf"),
    ],
)
def test_a_library_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, package: str, spec: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SparsemendError, match=rf"{spec}.*pip install 'sparsemend\[{extra}\]'"):
        load(spec)


# ---------------------------------------------------------------------------- files

FILE = """
from beside import Layer
from torch import nn

class Net(nn.Sequential):
    def __init__(self, features, act="relu", *, bias=True):
        super().__init__(Layer(features, 2, bias=bias))
        self.act = act

class Maker:
    tiny = staticmethod(lambda: Net(1))

net = Net(3)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("from torch.nn import Linear as Layer")
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return path


def test_a_file_with_arguments(file: Path) -> None:
    found = load(f"{file}:Net", arguments={"features": 3, "bias": False})
    assert found.model[0].weight.shape == (2, 3)  # type: ignore[index]
    assert found.model[0].bias is None  # type: ignore[index]
    assert type(load(f"{file}:Maker.tiny").model) is type(found.model)


def test_a_network_that_there_is(file: Path) -> None:
    with torch.no_grad():
        load(f"{file}:net").model[0].weight.zero_()  # type: ignore[index, operator]
    assert load(f"{file}:net").model[0].weight.any()  # type: ignore[index, operator]
    with pytest.raises(SparsemendError, match=r"is a network, which takes no arguments: got"):
        load(f"{file}:net", arguments={"features": 3})


def test_a_file_that_does_not_do(file: Path) -> None:
    with pytest.raises(SparsemendError, match=r"Net.*missing 1 required.*--model-arg key=value"):
        load(f"{file}:Net")
    with pytest.raises(SparsemendError, match="takes no depth: got 3"):
        load(f"{file}:Net", arguments={"features": 3, "depth": 3})
    with pytest.raises(SparsemendError, match=r"there is no file .*nowhere.py'"):
        load(f"{file.parent / 'nowhere.py'}:Net")
    file.with_name("broken.py").write_text("1 / 0")
    with pytest.raises(SparsemendError, match=r"cannot be imported: ZeroDivisionError"):
        load(f"{file.with_name('broken.py')}:Net")


# ---------------------------------------------------------------------------- timm


def test_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    small = {"channels": (8, 8, 8, 8), "pretrained": False}
    found = load("timm:resnet18", arguments=small, num_classes=7)
    assert found.model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert not found.model.training
    assert found.preprocessing == Preprocessing(
        resize=235,
        crop=(224, 224),
        mean=timm.data.IMAGENET_DEFAULT_MEAN,
        std=timm.data.IMAGENET_DEFAULT_STD,
        interpolation="bicubic",
        channels=3,
    )
    path = tmp_path / "weights.safetensors"
    save_weights(path, found.model.state_dict(), {"mean": "0.5,0.5,0.5", "std": "1,1,1"})
    again = load("timm:resnet18", path, arguments=small, num_classes=7)
    assert same(again.model, found.model)
    assert again.mean == (0.5, 0.5, 0.5)
    with pytest.raises(SparsemendError, match="did you mean 'resnet18'"):
        load("timm:resnet81")


def test_timm_fetches_nothing_by_itself() -> None:
    pytest.importorskip("timm")
    for name in ("resnet18", "vgg11"):
        with pytest.raises(SparsemendError, match=r"not on this machine.*pretrained=true"):
            load(f"timm:{name}")


# ---------------------------------------------------------------------------- torchvision


def test_torchvision(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    found = load("torchvision:shufflenet_v2_x0_5", arguments={"weights": None}, num_classes=3)
    assert found.model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    assert found.preprocessing is not None
    assert (found.preprocessing.resize, found.preprocessing.crop) == (256, (224, 224))
    path = tmp_path / "weights.safetensors"
    save_weights(path, found.model.state_dict(), {})
    assert same(load("torchvision:shufflenet_v2_x0_5", path, num_classes=3).model, found.model)


def test_torchvision_with_a_backbone_fetches_nothing() -> None:
    pytest.importorskip("torchvision")
    found = load(
        "torchvision:lraspp_mobilenet_v3_large", arguments={"weights": None}, num_classes=3
    )
    assert found.model(torch.zeros(1, 3, 32, 32))["out"].shape == (1, 3, 32, 32)


def test_torchvision_refusals() -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(SparsemendError, match=r"not on this machine.*weights=DEFAULT"):
        load("torchvision:resnet18")
    with pytest.raises(SparsemendError, match="did you mean 'resnet18'"):
        load("torchvision:resnet81")
    with pytest.raises(SparsemendError, match=r"failed when called with .*depth"):
        load("torchvision:resnet18", arguments={"weights": None, "depth": 3})


# ---------------------------------------------------------------------------- Hugging Face


@pytest.fixture
def vision_folder(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=32,
        patch_size=16,
        num_labels=3,
    )
    folder = tmp_path / "vit"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_hugging_face(vision_folder: Path, tmp_path: Path) -> None:
    found = load(f"hf:{vision_folder}")
    assert type(found.model).__name__ == "ViTForImageClassification"
    assert found.model(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 3)
    assert found.preprocessing is not None
    assert (found.preprocessing.resize, found.preprocessing.crop) == ((32, 32), None)
    assert found.mean == (0.5, 0.5, 0.5)
    assert type(load(f"hf:{vision_folder}#AutoModel").model).__name__ == "ViTModel"
    # A file of weights over a folder that may have none.
    path = tmp_path / "weights.safetensors"
    save_weights(path, {k: v + 1 for k, v in found.model.state_dict().items()}, {})
    (vision_folder / "model.safetensors").unlink()
    changed = load(f"hf:{vision_folder}", path).model
    first, second = (next(iter(m.state_dict().values())) for m in (found.model, changed))
    assert torch.equal(first + 1, second)
    with pytest.raises(SparsemendError, match=r"neither a folder nor in the local cache"):
        load(f"hf:{vision_folder}")


def test_hugging_face_refusals(vision_folder: Path) -> None:
    with pytest.raises(SparsemendError, match=r"local_files_only=false"):
        load("hf:nobody/nothing-of-this-name")
    with pytest.raises(SparsemendError, match=r"no class .*AutoModelForNothing"):
        load(f"hf:{vision_folder}#AutoModelForNothing")
