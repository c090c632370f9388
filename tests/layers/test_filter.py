"""Which layers are pruned: by name, pattern and class."""

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.errors import SparsemendError


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(64, 5)
    ).eval()


def images():
    return torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        ((), (), ("0", "2", "4")),
        ((), "first", ("2", "4")),
        ((), ["first", "last"], ("2",)),
        ("depthwise", (), ("2",)),
        (["0", "[24]"], "last", ("0", "2")),
        ("*", "depthwise", ("0", "4")),
    ],
)
def test_layers_by_name_pattern_and_class(include, exclude, names):
    layers = sm.discover(net(), images(), include=include, exclude=exclude)
    assert layers.names == names
    assert [layer.order for layer in layers] == list(range(len(names)))
    coverage = layers.coverage
    assert coverage.covered == layers.total
    assert coverage.matrix == 108 + 36 + 320
    assert {part.reason for part in coverage.left_out} <= {"not chosen"}


@pytest.mark.parametrize("patterns", [3, ["first", 3], [None]])
def test_what_is_no_pattern(patterns):
    with pytest.raises(SparsemendError, match="include is of the wrong kind: got"):
        sm.discover(net(), images(), include=patterns)


def test_excluded_layers_stay_as_they_are_and_do_not_count():
    model = net()
    result = sm.compress(model, images(), 0.5, "uniform", repair="variance", exclude=["first"])
    assert set(result.allocation) == {"2", "4"}
    assert result.allocation.total == 356
    assert torch.equal(result.model[0].weight, model[0].weight)
    assert "38.36 % of all matrix weights" in str(result)
    assert result.to_dict()["coverage"]["left_out"][0]["parameter"] == "0.weight"
    found = sm.calibrate(model, images(), exclude="last")
    assert set(found.moments) == {"0", "2"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"exclude": "fc*"}, r"^no layer of the network is meant by this pattern: got 'fc\*'"),
        ({"include": "9"}, "^no layer of the network is meant by this pattern: got '9'"),
        ({"exclude": "*"}, "^no layer is left to prune"),
    ],
)
def test_what_means_nothing_is_refused(options, text):
    with pytest.raises(SparsemendError, match=text):
        sm.compress(net(), images(), 0.5, "uniform", repair="none", **options)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.body = nn.Embedding(12, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.body(self.embed(ids)).relu())


def test_weights_tied_to_an_embedding_only_where_asked_for():
    torch.manual_seed(0)
    ids = torch.randint(0, 12, (6, 4))
    with pytest.warns(sm.SparsemendWarning, match="tied to an embedding"):
        assert sm.discover(Tied(), ids).names == ("body",)
    assert sm.discover(Tied(), ids, include="embedding").names == ("body", "embed")
