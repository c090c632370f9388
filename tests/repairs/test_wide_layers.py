import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.repairs import reconstruction


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 5)).eval()


@pytest.mark.parametrize("mask", ["magnitude", "gradual"])
def test_a_layer_too_wide_for_its_moments_is_matched_and_named(monkeypatch, mask):
    monkeypatch.setattr(reconstruction, "_MOST_MOMENTS", 40**2 - 1)
    dense, inputs = network(), torch.randn(200, 6)
    with pytest.warns(sm.SparsemendWarning, match=r"too wide .*: 2; .* scaled and shifted"):
        result = sm.compress(dense, inputs, 0.5, "uniform", mask, "reconstruct")
    kept = {name: int(found.sum()) for name, found in result.masks.items()}
    assert kept == dict(result.allocation)
    largest = dense[2].weight.abs().flatten().topk(kept["2"]).indices
    assert set(largest.tolist()) == set(result.masks["2"].flatten().nonzero().flatten().tolist())
    # Scaled and shifted by least squares: no other scale or shift of a channel comes closer.
    hidden = result.model[:2](inputs)
    wanted, found = dense[2](dense[:2](inputs)), result.model[2](hidden)
    error = found - wanted
    assert torch.allclose(error.mean(0), torch.zeros(5), atol=1e-5)
    assert torch.allclose((error * (found - found.mean(0))).mean(0), torch.zeros(5), atol=1e-5)


def test_a_layer_of_64_million_moments_a_row_is_compressed():
    torch.manual_seed(0)
    wide = nn.Conv2d(1024, 2, (64, 1))  # 65,536² moments would take 16 GiB
    network = nn.Sequential(nn.Conv2d(1, 1024, 1), nn.ReLU(), wide, nn.Flatten()).eval()
    x = torch.randn(4, 1, 64, 1)
    with pytest.warns(sm.SparsemendWarning, match="too wide"):
        result = sm.compress(network, x, 0.8, "erk", "gradual", "reconstruct")
    zeros = sum(int((result.model.get_submodule(n).weight == 0).sum()) for n in ("0", "2"))
    assert zeros == result.allocation.total - result.allocation.kept
