"""On an accelerator every number that is read waits for all that was begun: they are counted."""

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparsemend.calibration import gather_moments
from sparsemend.layers import discover
from sparsemend.solvers.units import unit_of


class Reads(TorchDispatchMode):
    """Counts numbers that are read one by one."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_calibration_reads_two_numbers_for_every_layer_and_batch():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 2))
    batches = [torch.randn(2, 2, 6, 6) for _ in range(5)]
    layers = discover(model, batches[0])
    counts = []
    for seen in (batches[:2], batches):
        with Reads() as reads:
            gather_moments(model, seen, layers)
        counts.append(reads.count)
    # Whether inputs are finite, and whether they are far from zero; and once, whether the batch is.
    assert counts[1] - counts[0] <= 3 * (2 * len(layers) + 1)


def test_the_unit_of_many_tensors_is_read_without_waiting_for_each():
    with Reads() as reads:
        assert unit_of(*(torch.full((3,), 1e-20 * 2**k) for k in range(4))) < 1e-19
    assert reads.count == 0
