"""What a reconstruction aims at, on a residual stream: the dense network's sums."""

import copy

import pytest
import torch
from tests.layers import streams
from torch import nn

from sparsemend.layers import discover
from sparsemend.repairs import Support, fit, reconstruction
from sparsemend.session import Session

pytestmark = [
    pytest.mark.usefixtures("ample_evidence"),
    pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge"),
]


def reconstructed(dense, batches, monkeypatch):
    """The reconstructed network, and what remains of every layer's targets, [positions, C]."""
    layers, model, left = discover(dense, batches[0]), copy.deepcopy(dense), {}

    def fit_layer(given, targets, *args, **options):
        wanted = targets.first()
        fit, covariance = original(given, targets, *args, **options)
        if fit.weight.shape[0] == 1 and not given.layer.is_convolution:
            weight, shift = fit.weight[0].float(), fit.shift.float()
            outputs = [x @ weight.mT + shift for x in given.inputs]
            rows = [(z - t).flatten(0, -2) for z, t in zip(outputs, wanted, strict=True)]
            left[given.layer.name] = torch.cat(rows)
        return fit, covariance

    original = reconstruction.fit_layer
    monkeypatch.setattr(reconstruction, "fit_layer", fit_layer)
    counts = {layer.name: layer.size // 2 for layer in layers}
    reconstruction.reconstruct(Session(dense, batches), model, Support(counts, None))
    return model, left


def difference(model, dense, batches):
    """By how much the networks' outputs differ, all in all."""
    with torch.no_grad():
        return sum((model(x) - dense(x)).square().sum() for x in batches).sqrt()


@pytest.mark.parametrize("kind", streams.NETWORKS)
def test_what_is_left_of_the_last_targets_is_the_error_of_the_stream(kind, monkeypatch):
    torch.manual_seed(0)
    dense = streams.NETWORKS[kind]().eval()
    batches = [streams.inputs(kind, count=9, seed=seed) for seed in range(2)]
    model, left = reconstructed(dense, batches, monkeypatch)
    *_, last = left.values()
    if kind in ("layer scale", "turned"):
        last = last * dense.gamma.detach() * (0.5 if kind == "layer scale" else 1)
    error = difference(model, dense, batches)
    assert error > 0
    torch.testing.assert_close(last.norm(), error, rtol=1e-3, atol=1e-4)


def test_channels_that_the_scale_switches_off_keep_their_dense_targets(monkeypatch):
    torch.manual_seed(0)
    dense = streams.LayerScale().eval()
    with torch.no_grad():
        dense.gamma[1] = 0
    model, left = reconstructed(dense, [streams.inputs("", count=20)], monkeypatch)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert left["down"][:, 1].norm() < model.down(torch.randn(140, 12))[:, 1].norm()


def test_a_block_that_inputs_pass_by_is_fitted_without_the_stream(monkeypatch):
    class Skipping(streams.PreNorm):
        """The norm sees the stream of all inputs but the second batch's."""

        def branch(self, x):
            return super().branch(x) if len(x) != 3 else self.down(self.up(x).relu())

    torch.manual_seed(0)
    dense = Skipping().eval()
    batches = [streams.inputs("", count=9), streams.inputs("", count=3)]
    model, left = reconstructed(dense, batches, monkeypatch)
    assert set(left) == {"stem", "up", "down"}
    assert not torch.isclose(left["down"].norm(), difference(model, dense, batches), rtol=1e-2)


def test_moments_of_inputs_that_layers_share_are_computed_once(monkeypatch):
    made = []

    def collector(layer, *args, **options):
        made.append(layer.name)
        return original(layer, *args, **options)

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.up, self.down = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x, attention_mask):  # noqa: ARG002
            return self.down(self.gate(x).sigmoid() * self.up(x))

    original = fit.MomentsCollector
    monkeypatch.setattr(fit, "MomentsCollector", collector)
    torch.manual_seed(0)
    mask = (torch.arange(7) < torch.arange(12)[:, None] % 7 + 1).long()
    batch = {"x": streams.inputs("", count=12), "attention_mask": mask}
    _, left = reconstructed(Gated().eval(), [batch], monkeypatch)
    assert list(left) == ["gate", "up", "down"]
    assert made == ["gate", "down"]


def test_padding_counts_in_no_stream(monkeypatch):
    class Masked(streams.PreNorm):
        def forward(self, x, attention_mask):  # noqa: ARG002
            return super().forward(x)

    torch.manual_seed(0)
    dense, x = Masked().eval(), streams.inputs("", count=12)
    mask = (torch.arange(7) < torch.arange(12)[:, None] % 7 + 1).long()
    model, left = reconstructed(dense, [{"x": x, "attention_mask": mask}], monkeypatch)
    with torch.no_grad():
        wrong = (model(x, mask) - dense(x, mask))[mask.bool()]
    torch.testing.assert_close(left["down"], wrong, rtol=1e-3, atol=1e-4)
