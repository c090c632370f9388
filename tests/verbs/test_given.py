"""Compression to densities of layers that a user gives."""

import pytest
import torch
from tests.faults.networks import small_network

import sparsemend as sm

BATCHES = [torch.randn(128, 1, 8, 8, generator=torch.Generator().manual_seed(0))]
GIVEN = {"*": 0.2, "first": 1.0, "last": 0.5}


@pytest.mark.parametrize("repair", ["none", "variance", "reconstruct", "batchnorm"])
def test_every_layer_keeps_its_share(repair):
    model = small_network()
    result = sm.compress(model, BATCHES, rule=GIVEN, repair=repair)
    sizes = result.allocation.sizes
    first, *middle, last = sizes
    wanted = {first: sizes[first], last: -(-sizes[last] // 2)}
    wanted |= {name: int(0.2 * sizes[name] + 0.5) for name in middle}
    assert dict(result.allocation) == wanted
    assert {name: int(mask.sum()) for name, mask in result.masks.items()} == wanted
    assert result.rule == "given"


def test_it_is_the_allocation_of_these_counts():
    model = small_network()
    given = sm.compress(model, BATCHES, rule=GIVEN, repair="variance")
    again = sm.compress(model, BATCHES, rule=given.allocation, repair="variance")
    torch.testing.assert_close(given.model.state_dict(), again.model.state_dict(), rtol=0, atol=0)
    agreeing = round(given.allocation.sparsity, 3)
    assert sm.compress(model, BATCHES, agreeing, GIVEN, repair="none").rule == "given"


def test_a_layer_may_be_given_up():
    with pytest.warns(sm.SparsemendWarning, match="the signal ends at 0"):
        result = sm.compress(small_network(), BATCHES, rule={"first": 0}, repair="none")
    assert next(iter(result.allocation.values())) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sparsity": 0.9}, "the densities come to another sparsity"),
        ({"target_flops": 0.1}, "a density of each layer says itself how many .* 'target_flops'"),
        ({"pattern": "2:4"}, "pattern '2:4' gives every layer the same density.* got 'given'"),
        ({"rule": {"nope": 0.1}}, "no layer of the network is meant by this pattern: got 'nope'"),
        ({"rule": {"*": 90}}, r"density of '\*' is out of range: got 90"),
        ({"rule": 3}, "rule is of the wrong kind"),
        ({"budget": "1h"}, "rule 'given' does not search"),
    ],
)
def test_what_does_not_go_together(options, text):
    with pytest.raises(sm.SparsemendError, match=text):
        sm.compress(small_network(), BATCHES, **({"rule": GIVEN, "repair": "none"} | options))
