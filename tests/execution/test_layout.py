"""Where images are laid out channels last, and what comes out then."""

import pytest
import torch
from torch import nn

from sparsemend.evaluation import Reference
from sparsemend.execution.layout import CHANNELS_LAST_FROM, fastest_layout

WIDE = CHANNELS_LAST_FROM
needs_fast_convolutions = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of PyTorch has no oneDNN"
)


class Viewed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(WIDE, 4, 3, padding=1), nn.Linear(4 * 36, 3)

    def forward(self, x):
        maps = self.conv(x)
        return self.fc(maps.view(len(x), -1))


def images(channels=WIDE):
    return torch.randn(3, channels, 6, 6, generator=torch.Generator().manual_seed(0))


@needs_fast_convolutions
def test_images_of_wide_networks_are_laid_out_channels_last():
    layout = fastest_layout(nn.Conv2d(WIDE, 4, 3), images()[:1])
    for batch, image in ((images(), lambda x: x), ((images(),), lambda x: x[0])):
        found = image(layout(batch))
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(found, images())


@pytest.mark.parametrize(
    ("network", "batch"),
    [
        (Viewed(), images()),
        (nn.Conv2d(WIDE // 2, 4, 3), images(WIDE // 2)),
        (nn.Conv2d(WIDE, WIDE, 3, groups=WIDE), images()),
        (nn.Linear(6, 2), images()),
        (nn.Conv2d(WIDE, 4, 3), {"unknown": images()}),
        (nn.Embedding(5, 2), torch.zeros(2, 3, dtype=torch.long)),
    ],
)
def test_all_else_stays_as_it_is(network, batch):
    assert fastest_layout(network, batch)(batch) is batch


def test_networks_that_view_their_maps_are_judged_all_the_same():
    network = Viewed()
    assert Reference(network, [images()]).agreement(network).loss == 0


def test_outputs_are_those_of_the_batch_as_it_was():
    network = nn.Sequential(nn.Conv2d(WIDE, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    laid_out = fastest_layout(network, images())(images())
    torch.testing.assert_close(network(laid_out), network(images()))
