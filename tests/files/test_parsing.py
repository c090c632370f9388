import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.files import parse_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(values)
def test_json_is_read(value):
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_deep_nesting_is_an_error_as_any_other(opening):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(opening * 200_000)


@pytest.mark.parametrize("text", ["", "{", "9" * 5000, b"\xff\xfe\xff"])
def test_what_is_no_json(text):
    with pytest.raises(ValueError):  # noqa: PT011 (Python's own texts)
        parse_json(text)
