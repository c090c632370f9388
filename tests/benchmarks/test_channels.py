"""Channels that are left out do not multiply any more."""

import pytest
import torch
from tests.repairs.networks import conv_bn, images

import sparsemend as sm

# Needs the repository's root on the path: python -m pytest.
channels = pytest.importorskip("benchmarks.channels")


@pytest.mark.parametrize("least", [0.0, 0.3, 0.9])
def test_the_smallest_share_that_is_enough(least):
    found = channels.bisect(lambda share: share >= least)
    assert least <= found <= least + 2**-8


def test_the_smaller_network_multiplies_no_more_often_than_asked():
    model, batch = conv_bn(width=12), images(8)
    example = batch[:1]
    result = sm.compress(
        model, [batch], rule="uniform", mask="magnitude", repair="batchnorm",
        target_flops=0.5, pattern="channel",
    )  # fmt: skip
    smaller = channels.shrunk(result.model, example)
    share = channels.multiplications(smaller, example) / channels.multiplications(model, example)
    assert 0.3 < share <= 0.5
    # The dense network also multiplies with the zeros that make a constant channel.
    assert share - 0.05 < result.kept_multiplications <= share
    torch.testing.assert_close(smaller(example), result.model(example), rtol=1e-4, atol=1e-4)


def test_norms_have_the_statistics_of_the_inputs():
    model, batch = conv_bn(width=12), images(32)
    channels.recalibrate(model, [batch[:16], batch[16:]])
    first = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(batch)
    torch.testing.assert_close(first.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
