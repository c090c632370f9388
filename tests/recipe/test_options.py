"""One table of options: recipes, keywords of Python and columns of stores agree with it."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import sparsemend as sm
from sparsemend.allocation import RULES
from sparsemend.cli._options import DEVICE, NETWORK, RUN
from sparsemend.masks import MASKS
from sparsemend.recipe import Recipe
from sparsemend.recipe.options import (
    BATCH_SIZE,
    BUDGET,
    EXCLUDE,
    INCLUDE,
    INPUT,
    LIMIT,
    MASK,
    NEW_BIASES,
    RECIPE,
    REPAIR,
    RULE,
    SEED,
    SPARSITY,
    TARGETS,
    Option,
)
from sparsemend.repairs import REPAIRS
from sparsemend.sweeps.schema import key_columns
from sparsemend.targets import KINDS

ALL = (*RECIPE, *TARGETS, *INPUT, *NETWORK, *RUN)


def default_of(parameter):
    return None if parameter.default is parameter.empty else parameter.default


def ids(options):
    return {"argvalues": options, "ids": [option.name for option in options]}


def test_every_field_of_a_recipe_has_an_option():
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    assert fields.pop("target").default is None  # which TARGETS say
    assert {option.name for option in RECIPE} == set(fields)
    for option in RECIPE:
        default = fields[option.name].default
        assert option.required == (default is dataclasses.MISSING)
        assert option.required or option.default == default


@pytest.mark.parametrize("option", **ids((*RECIPE, *TARGETS)))
def test_keywords_of_compress(option):
    parameter = inspect.signature(sm.compress).parameters[option.name]
    assert option.required == (parameter.default is parameter.empty)
    assert option.default == default_of(parameter)


def test_targets_are_the_kinds_that_there_are():
    arguments = [kind.argument for kind in KINDS.values()]
    assert [option.name for option in TARGETS] == arguments
    assert set(arguments) <= set(inspect.signature(sm.allocate).parameters)


SWEPT = [option for option in (*RECIPE, *TARGETS, *INPUT, *RUN) if option is not DEVICE]


@pytest.mark.parametrize("option", **ids(SWEPT))
def test_keywords_of_sweep(option):
    parameter = inspect.signature(sm.sweep).parameters[option.keyword]
    default = option.default if option.sweep_default is None else option.sweep_default
    several = option.many and default is not None
    assert default_of(parameter) == ((default,) if several else default)


def test_sweep_has_no_keyword_without_an_option():
    known = {option.keyword for option in ALL}
    mine = {"model", "data", "heldout", "test", "diagnosis", "dry_run", "progress"}
    assert set(inspect.signature(sm.sweep).parameters) - mine <= known


def test_columns_of_stores():
    columns = {column.name: column.type for column in key_columns()}
    sql = {str: "TEXT", int: "INTEGER", float: "REAL", bool: "INTEGER"}
    options = [option for option in (*RECIPE, *INPUT) if option is not LIMIT]
    for option in options:
        assert columns.pop(option.name) == ("TEXT" if option.several else sql[option.type])
    # What an option is not: names and fingerprints, and how many test inputs there were; and the
    # target, which one of several options says.
    assert set(columns) == {
        "network",
        "target",
        "test_size",
        "weights",
        "inputs",
        "test",
        "diagnosis",
    }


def test_names_are_unique():
    assert len({option.name for option in ALL}) == len(ALL)
    assert len({option.keyword for option in ALL}) == len(ALL)


@pytest.mark.parametrize(("option", "registry"), [(RULE, RULES), (MASK, MASKS), (REPAIR, REPAIRS)])
def test_help_names_parts_that_are_registered_later(monkeypatch, option, registry):
    record = next(iter(registry.values()))
    monkeypatch.setitem(registry, "mine", dataclasses.replace(record, name="mine"))
    assert "mine" in option.choices()
    assert " mine" in option.text()
    assert " mine" in option.for_sweep().text()


def test_spelling():
    assert BATCH_SIZE.spelling == "--batch-size"
    assert Option("source", str, "", flag="--from").spelling == "--from"


def test_values_of_files():
    assert RULE.read_value("erk") == ["erk"]
    assert SEED.read_value([1, 2]) == [1, 2]
    assert SPARSITY.read_value([0.9, "0.80:0.98:0.01"]) == ["0.9", "0.80:0.98:0.01"]
    assert BUDGET.read_value(40) == "40"
    assert LIMIT.read_value(3) == 3
    assert NEW_BIASES.read_value(True) is True
    assert EXCLUDE.read_value("first") == ["first"]


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        (RULE, 3, "a text"),
        (SEED, [True], "a whole number"),
        (LIMIT, [3], "a whole number"),
        (SPARSITY, [[0.9]], "a number, or a range"),
        (BUDGET, False, "a number"),
        (NEW_BIASES, 1, "true or false"),
        (INCLUDE, ["first", 3], "a text"),
    ],
)
def test_values_that_are_refused(option, value, allowed):
    with pytest.raises(TypeError, match=f"^{allowed}"):
        option.read_value(value)


def test_a_flag_of_a_sweep_is_none_unless_given():
    for option in ALL:
        flag = option.for_sweep()
        several = option.several or bool(option.many)
        assert (flag.default, flag.required, flag.several) == (None, False, several)
        assert "{default}" not in flag.help
