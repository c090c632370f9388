import copy
import pickle

import pytest

from sparsemend.errors import SparsemendError, SparsemendWarning


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"what": "nothing fits"}, "nothing fits"),
        ({"what": "a", "value": None}, "a: got None"),
        ({"what": "a", "value": "x"}, "a: got 'x'"),
        ({"what": "a", "allowed": "b"}, "a; allowed: b"),
        ({"what": "a", "fix": "do c"}, "a; do c"),
        (
            {"what": "a", "value": 1.5, "allowed": "b", "fix": "do c"},
            "a: got 1.5; allowed: b; do c",
        ),
    ],
)
def test_text_says_what_was_wrong_and_what_to_do(arguments, text):
    assert str(SparsemendError(**arguments)) == text


def test_errors_are_value_errors_and_warnings_user_warnings():
    assert issubclass(SparsemendError, ValueError)
    assert issubclass(SparsemendWarning, UserWarning)


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_cross_processes(again):
    error = SparsemendError("a", 1, "b", "c")
    assert (type(again(error)), str(again(error))) == (SparsemendError, str(error))
