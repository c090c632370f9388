import numpy as np
import pytest

from sparsemend.search.climb import Climb
from sparsemend.search.directions import Move

MOVES = [Move(*key, np.ones(2)) for key in (("group", "x"), ("layer", "x"), ("layer", "y"))]
START, HERE, THERE = np.zeros(2), np.ones(2), np.full(2, 2.0)


@pytest.mark.parametrize("move", MOVES)
def test_steps_grow_with_success_and_shrink_without(move):
    walk = Climb(START, "erk")
    first = walk.step(move)
    assert walk.signs(move) == (1, -1)
    walk.accept(move, -1.0, HERE)
    assert walk.point is HERE
    assert walk.step(move) > first
    assert walk.signs(move) == (-1, 1)
    for _ in range(10):
        walk.refuse(move)
    assert not walk.may_help(move)


def test_moves_of_one_name_and_other_kinds_are_apart():
    walk = Climb(START, "erk")
    steps = [walk.step(move) for move in MOVES]
    assert all(walk.may_help(move) for move in MOVES)
    walk.refuse(MOVES[0])
    assert [walk.step(move) for move in MOVES[1:]] == steps[1:]
    assert walk.step(MOVES[0]) < steps[0]


def test_a_walk_goes_back_to_what_was_confirmed_with_smaller_steps():
    walk = Climb(START, "erk")
    walk.step(MOVES[0])
    walk.accept(MOVES[0], 1.0, HERE)
    assert (walk.name, walk.unconfirmed) == ("erk after 1 move", 1)
    walk.confirm()
    assert (walk.point is HERE, walk.unconfirmed) == (True, 0)
    steps = [walk.step(move) for move in MOVES]
    walk.accept(MOVES[1], 1.0, THERE)
    walk.accept(MOVES[2], 1.0, THERE)
    assert (walk.name, walk.unconfirmed) == ("erk after 3 moves", 2)
    walk.revert()
    assert walk.point is HERE
    assert (walk.name, walk.unconfirmed) == ("erk after 1 move", 0)
    assert all(walk.step(move) < step for move, step in zip(MOVES, steps, strict=True))
