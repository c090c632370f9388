"""How long a distillation trains, as options say it."""

import math

import pytest

from sparsemend import SparsemendError
from sparsemend.recipe import Recipe
from sparsemend.recipe.training import parse_distill
from sparsemend.repairs import parse_repair

TRAINS = parse_repair("reconstruct+distill")


@pytest.mark.parametrize(
    ("value", "steps", "seconds"),
    [
        (None, 400, math.inf),
        (50, 50, math.inf),
        ("50", 50, math.inf),
        ("90s", math.inf, 90),
        ("2min", math.inf, 120),
    ],
)
def test_steps_and_times(value, steps, seconds):
    found = parse_distill(value, TRAINS)
    assert (found.steps, found.seconds) == (steps, seconds)
    assert parse_distill(str(found), TRAINS) == found


@pytest.mark.parametrize("value", ["soon", 0, -3, "1.5", "3 days"])
def test_what_is_neither_is_refused(value):
    with pytest.raises(SparsemendError, match="length of the distillation is not understood"):
        parse_distill(value, TRAINS)


def test_a_recipe_says_it_where_its_repair_trains():
    assert Recipe(0.9, "erk", repair="variance+distill").distill == "400"
    assert Recipe(0.9, "erk", repair="best").distill is None
    assert Recipe(0.9, "erk", repair="best", distill="2min").distill == "120s"
    with pytest.raises(SparsemendError, match="does not train, so there is no use for distill"):
        Recipe(0.9, "erk", repair="variance", distill=400)


def test_rule_auto_knows_a_repair_without_its_training_and_with_it():
    assert str(TRAINS.trial) == "reconstruct"
    assert str(parse_repair("distill").trial) == "variance"
    assert str(parse_repair("best").trial) == "reconstruct"
    assert str(TRAINS.trained) == "reconstruct+distill"
    assert str(parse_repair("distill").trained) == "distill"
    assert str(parse_repair("best").trained) == "reconstruct+distill"
    assert Recipe(0.9, "erk", repair="variance+distill").judges
