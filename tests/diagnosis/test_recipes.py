"""Which repair and which masks a recipe's rule gets a diagnosis of."""

from dataclasses import replace

import pytest
from tests.repairs.networks import conv_bn, images

import sparsemend as sm
from sparsemend.diagnosis import recipe_diagnosis
from sparsemend.masks import MASKS
from sparsemend.masks.gradual import GRADUAL
from sparsemend.recipe import Recipe
from sparsemend.session import Session


@pytest.mark.parametrize(
    ("rule", "repair", "mask", "expected"),
    [
        ("rr", "reconstruct", "gradual", ("reconstruct", "gradual")),
        ("rr", "affine", "activation", ("affine", "activation")),
        ("auto", "reconstruct", "gradual", ("reconstruct", "gradual")),
        ("auto", "best", "activation", ("reconstruct", "activation")),
        ("sensitivity", "reconstruct", "gradual", ("affine", "magnitude")),
        ("sensitivity", "batchnorm", "activation", ("variance", "activation")),
        ("erk[first=sensitivity]", "best", None, ("affine", "magnitude")),
    ],
)
def test_of_what_it_is(rule, repair, mask, expected):
    session = Session(conv_bn(), [images(20)])
    recipe = Recipe(0.6, rule, mask, repair)
    found = recipe_diagnosis(session, recipe)
    assert (found.repair, found.mask) == expected
    assert recipe_diagnosis(session, recipe) is found


def test_a_search_does_without_masks_that_each_cost_a_repair(monkeypatch):
    monkeypatch.setitem(MASKS, "gradual", replace(GRADUAL, stand_ins=None))
    session = Session(conv_bn(), [images(20)])
    found = recipe_diagnosis(session, Recipe(0.6, "auto", "gradual", "reconstruct"))
    assert (found.repair, found.mask) == ("reconstruct", "magnitude")


@pytest.mark.parametrize(("repair", "mask"), [("reconstruct", "gradual"), ("affine", "activation")])
def test_where_layers_are_too_wide_searches_go_by_what_is_measured(repair, mask):
    model, batches = conv_bn(), [images(20)]
    wide = Session(model, batches, calibration=sm.calibrate(model, batches, max_fan_in=60))
    found = recipe_diagnosis(wide, Recipe(0.6, mask=mask, repair=repair))
    assert (found.repair, found.mask) == ("variance", "magnitude")
