"""Layers that keep the same output channels: chosen by the sum of their scores."""

import dataclasses

import torch

from sparsemend.masks.coupled import coupled_masks
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.masks.rule import MaskProblem
from sparsemend.patterns import MatrixShape, parse_pattern

NAMES = ("a", "b")


def problem(*norms, columns=2):
    """A layer whose rows have these norms."""
    shape = MatrixShape(1, len(norms), columns, 1)
    weight = torch.tensor(norms).reshape(1, -1, 1).repeat(1, 1, columns) / columns**0.5
    structure = parse_pattern("channel").coupled_as(NAMES).on(shape)
    return MaskProblem(weight, structure=structure)


def kept(masks, name):
    mask = masks[name][0]
    assert bool((mask.all(1) | ~mask.any(1)).all())
    return mask.any(1).nonzero().flatten().tolist()


def test_each_layer_has_one_vote_whatever_its_scale():
    # Shares of the squares: 0.9, 0.1, 0 and 0, 0.4, 0.6.
    problems = {"a": problem(3.0, 1.0, 0.0), "b": problem(0.0, 200.0, 60000**0.5, columns=3)}
    masks = coupled_masks(MAGNITUDE, problems, {"a": 2, "b": 3})
    assert kept(masks, "a") == kept(masks, "b") == [0]
    masks = coupled_masks(MAGNITUDE, problems, {"a": 4, "b": 6})
    assert kept(masks, "a") == kept(masks, "b") == [0, 2]


def test_one_that_keeps_fewer_keeps_the_best_of_them_and_one_of_none_has_no_say():
    problems = {"a": problem(3.0, 1.0, 2.0), "b": problem(0.0, 9.0, 0.0)}
    masks = coupled_masks(MAGNITUDE, problems, {"a": 4, "b": 2})
    assert kept(masks, "a") == [0, 1]
    assert kept(masks, "b") == [1]
    masks = coupled_masks(MAGNITUDE, problems, {"a": 4, "b": 0})
    assert (kept(masks, "a"), kept(masks, "b")) == ([0, 2], [])
    none = coupled_masks(MAGNITUDE, problems, dict.fromkeys(NAMES, 0))
    assert not any(mask.any() for mask in none.values())


def test_equal_sums_go_by_index():
    dead = dataclasses.replace(problem(0.0, 0.0), weight=torch.zeros(1, 2, 2))
    masks = coupled_masks(MAGNITUDE, {"a": dead, "b": dead}, {"a": 2, "b": 2})
    assert kept(masks, "a") == [0]
