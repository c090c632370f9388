"""Which modules are of which kind."""

import pytest
from torch import nn

from sparsemend.errors import SparsemendError
from sparsemend.layers import Layer, discover
from sparsemend.layers.kinds import KINDS, is_layer, kind_named, kind_of

COVERED = [(kind, module, name) for kind in KINDS.values() for module, name in kind.modules.items()]


def test_names_and_modules_belong_to_one_kind():
    assert len({module for _, module, _ in COVERED}) == len(COVERED)
    assert len({name for _, _, name in COVERED}) == len(COVERED)


@pytest.mark.parametrize(("kind", "covered", "name"), COVERED)
def test_a_module_a_base_of_it_and_a_name_lead_to_the_kind(kind, covered, name):
    for cls in (covered, type("Derived", (covered,), {})):
        module = cls.__new__(cls)
        assert is_layer(module)
        assert kind_of(module) is kind
        assert kind.name_of(module) == name
    assert kind_named(name) is kind


def test_layers_are_named_by_their_kind():
    net = nn.Sequential(nn.Conv1d(2, 3, 1), nn.ConvTranspose3d(3, 2, 1), nn.Linear(2, 2))
    assert [layer.kind for layer in discover(net)] == ["Conv1d", "ConvTranspose3d", "Linear"]


def test_what_is_of_no_kind_is_refused():
    assert not is_layer(nn.BatchNorm2d(3))
    known = "; allowed: .*Conv1d/2d/3d, ConvTranspose1d/2d/3d or Linear"
    with pytest.raises(SparsemendError, match=r"no kind .*: got 'BatchNorm2d'" + known):
        kind_of(nn.BatchNorm2d(3))
    with pytest.raises(SparsemendError, match=r"no kind .* name: got 'Embedding'" + known):
        kind_named("Embedding")


@pytest.mark.parametrize(
    ("kind", "shape", "groups", "channels"),
    [
        ("Linear", (5, 4), 1, 4),
        ("Conv2d", (6, 2, 3, 3), 2, 4),
        ("ConvTranspose2d", (4, 3, 3, 2), 2, 4),
        ("Conv1d", (6, 1, 3), 6, 6),
    ],
)
def test_input_channels(kind, shape, groups, channels):
    rows = shape[1] * groups if kind.startswith("ConvTranspose") else shape[0]
    size = Layer("a", kind, shape, groups, rows, 1, 0).size
    layer = Layer("a", kind, shape, groups, rows, size // rows, 0)
    assert layer.input_channels == channels
