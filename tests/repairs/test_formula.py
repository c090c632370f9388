import pytest

from sparsemend.errors import SparsemendError
from sparsemend.operators import OPERATORS
from sparsemend.repairs import parse_repair, repair_names


@pytest.mark.parametrize(
    ("text", "operator", "batchnorm"),
    [
        ("none", "none", None),
        ("variance", "variance", None),
        ("batchnorm", None, "exact"),
        ("batchnorm-exact", None, "exact"),
        ("batchnorm(exact)", None, "exact"),
        ("batchnorm-ema", None, "ema"),
        ("batchnorm(ema)", None, "ema"),
        ("variance+batchnorm", "variance", "exact"),
        (" shrinkage + batchnorm-ema ", "shrinkage", "ema"),
    ],
)
def test_formulas(text, operator, batchnorm):
    names = [part.name for part in parse_repair(text).parts]
    recalibration = {None: None, "exact": "batchnorm", "ema": "batchnorm-ema"}[batchnorm]
    assert names == [name for name in (operator, recalibration) if name is not None]


@pytest.mark.parametrize("recalibration", ["", "batchnorm", "batchnorm-ema"])
@pytest.mark.parametrize("operator", ["", *OPERATORS])
def test_a_plan_prints_as_a_formula_that_reads_back(operator, recalibration):
    text = "+".join(part for part in (operator, recalibration) if part)
    if text:
        plan = parse_repair(text)
        assert str(plan) == text
        assert parse_repair(str(plan)) == plan


@pytest.mark.parametrize("name", repair_names())
def test_known_names_are_formulas(name):
    parse_repair(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "foo",
        "batchnorm+variance",
        "variance+mean",
        "batchnorm+batchnorm",
        "variance+",
        "batchnorm-foo",
        "batchnorm(3)",
        "BATCHNORM",
        None,
    ],
)
def test_anything_else_names_the_known(text):
    with pytest.raises(SparsemendError) as caught:
        parse_repair(text)
    message = str(caught.value)
    assert message.startswith(f"unknown repair: got {text!r}; allowed: ")
    for name in (*OPERATORS, "batchnorm", "batchnorm-ema", "'variance+batchnorm'"):
        assert name in message


def test_a_misspelt_name_is_put_right():
    with pytest.raises(SparsemendError, match="did you mean 'variance'"):
        parse_repair("varience")
    with pytest.raises(SparsemendError, match="did you mean 'batchnorm-ema'"):
        parse_repair("batchnorm-emma")


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("affine", "affine"),
        ("none", "none"),
        ("affine+batchnorm", "affine"),
        ("batchnorm", "variance"),
        ("none+batchnorm", "variance"),
    ],
)
def test_the_operator_that_a_diagnosis_uses(text, operator):
    assert parse_repair(text).diagnosis == operator
