import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from sparsemend.layers import LayerCalls, discover

OPTIONS = list(itertools.product([1, 2], [False, True], [False, True], [0, 3]))


@pytest.mark.parametrize(("depth", "both_ways", "biased", "projected"), OPTIONS)
def test_written_out_a_recurrent_network_computes_the_same(depth, both_ways, biased, projected):
    torch.manual_seed(0)
    network = nn.LSTM(4, 5, depth, bias=biased, bidirectional=both_ways, proj_size=projected)
    x = torch.randn(6, 2, 4)
    layers = discover(network.eval(), x)
    assert len(layers) == depth * (1 + both_ways) * (3 if projected else 2)
    assert layers.coverage.share == 1
    packed = pack_padded_sequence(x, torch.tensor([6, 3]))
    for inputs in (x, packed):
        with torch.no_grad():
            expected, states = network(inputs)
            with LayerCalls(network, layers):
                found, ends = network(inputs)
        if inputs is packed:
            expected, found = expected.data, found.data
        for ours, theirs in zip((found, *ends), (expected, *states), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)
