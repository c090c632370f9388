"""What is handed back is what was asked for, or there is an error that names the layer."""

import copy
import dataclasses

import pytest
import torch
from tests.repairs.networks import conv_bn, images, prune_half
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.masks import pruning
from sparsemend.masks.verification import verify_masks
from sparsemend.repairs import REPAIRS, Outcome, Repair
from sparsemend.verbs.verification import shapes_of, verify_result


def breaking(damage):
    """A repair that does damage to the network."""

    def run(session, network, terms):  # noqa: ARG001
        masks = dict(terms.support.masks)
        with torch.no_grad():
            damage(network, masks)
        return Outcome(masks)

    return Repair("broken", run)


def revive(network, masks):
    network[3].weight[~masks["3"]] = 0.5


def turn_negative(network, masks):
    network[3].weight[~masks["3"]] *= -1.0


def spread(network, masks):  # noqa: ARG001
    network[6].weight.fill_(0.5)


def forget(network, masks):  # noqa: ARG001
    del masks["6"]


def grow(network, masks):  # noqa: ARG001
    masks["6"] = torch.ones_like(masks["6"])


def reshape(network, masks):  # noqa: ARG001
    masks["6"] = masks["6"].flatten()


def add(network, masks):  # noqa: ARG001
    network[0].bias = nn.Parameter(torch.zeros(6))


def remove(network, masks):  # noqa: ARG001
    network[11].bias = None


def widen(network, masks):  # noqa: ARG001
    network[11].bias = nn.Parameter(torch.zeros(1))


DAMAGES = {
    revive: r"layer '3' has weights outside its mask that are not zero: got \d+; allowed: 0",
    turn_negative: r"layer '3' has pruned weights that are -0: got \d+; allowed: \+0 only",
    spread: r"layer '6' has weights outside its mask that are not zero",
    forget: r"layer '6' has no mask of its weight: got None",
    grow: r"layer '6' has a mask of another number of weights",
    reshape: r"layer '6' has no mask of its weight",
    add: r"parameter '0.bias' is not as it was: got \(6,\); allowed: no such parameter",
    remove: r"parameter '11.bias' is not as it was: got 'no such parameter'; allowed: \(5,\)",
    widen: r"parameter '11.bias' is not as it was: got \(1,\); allowed: \(5,\)",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_faulty_repair_gives_an_error_and_no_result(damage, monkeypatch):
    monkeypatch.setitem(REPAIRS, "broken", breaking(damage))
    dense = conv_bn()
    text = f"^verification of the result failed: {DAMAGES[damage]}"
    with pytest.raises(SparsemendError, match=text):
        sm.compress(dense, images(), 0.5, "erk", repair="broken")
    with pytest.raises(SparsemendError, match=text):
        sm.repair(prune_half(dense), dense, images(), "broken")


@pytest.mark.parametrize("count", [0, 7])
def test_a_faulty_mask_rule_gives_an_error(count, monkeypatch):
    def choose(model, *_, **__):
        masks = {"3": torch.zeros(model[3].weight.shape, dtype=torch.bool)}
        masks["3"].view(-1)[:count] = True
        return masks

    monkeypatch.setattr(pruning, "choose_masks", choose)
    with pytest.raises(SparsemendError, match=r"layer '3' has a mask of another number .* 6$|: 6;"):
        sm.prune(conv_bn(), {"3": 6})


class Shared(nn.Module):
    """Copies of it are the same object."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        return self.layer(x)


VERBS = {
    "compress": lambda dense, x: sm.compress(dense, x, 0.5, "erk", repair="variance"),
    "repair": lambda dense, x: sm.repair(copy.deepcopy(dense), dense, x),
}


@pytest.mark.parametrize("verb", VERBS)
def test_copies_that_share_parameters_are_refused_before_any_change(verb):
    torch.manual_seed(0)
    dense, x = nn.Sequential(Shared(), nn.Linear(6, 3)), torch.randn(20, 6)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    with pytest.raises(SparsemendError, match=r"^parameter '0.layer.weight' of a copy of the"):
        VERBS[verb](dense, x)
    torch.testing.assert_close(dense.state_dict(), before, rtol=0, atol=0)


def test_pruned_weights_of_a_given_network_become_plain_zeros():
    dense = conv_bn()
    pruned = prune_half(dense)
    with torch.no_grad():
        for name, mask in sm.find_masks(pruned).items():
            weight = pruned.get_submodule(name).weight
            weight[~mask] = -0.0
    repaired = sm.repair(pruned, dense, images(), "affine")
    for name, mask in sm.find_masks(pruned).items():
        assert not repaired.get_submodule(name).weight[~mask].signbit().any()


@pytest.mark.filterwarnings("ignore:reconstruction leans")
@pytest.mark.parametrize("repair", ["affine", "reconstruct", "best"])
def test_pruned_weights_are_never_minus_zero(repair):
    result = sm.compress(conv_bn(), images(), 0.8, "erk", repair=repair)
    for name, mask in result.masks.items():
        assert not result.model.get_submodule(name).weight[~mask].signbit().any()


def test_what_is_as_it_should_be_passes():
    dense, pruned = conv_bn(), prune_half(conv_bn())
    masks = sm.find_masks(pruned)
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    layers = sm.discover(dense)
    verify_masks(pruned, masks, counts, layers)
    verify_result(pruned, shapes_of(dense), masks, counts, layers)
    pruned[0].bias = nn.Parameter(torch.zeros(6))
    verify_result(pruned, shapes_of(dense), masks, counts, layers, ["0"])
    # Layers without a count stay dense and need no mask.
    del counts["0"], masks["0"]
    verify_result(pruned, shapes_of(dense), masks, counts, layers, ["0"])


def test_outcomes_of_one_network_are_joined():
    first = Outcome({}, ("a",), ("b", "c"), repair="x")
    second = dataclasses.replace(Outcome({}, (), ("c", "d")), repair="y")
    both = second.after(first)
    assert (both.added_biases, both.unshifted, both.repair) == (("a",), ("b", "c", "d"), "y")
