"""What tests of repairs share."""

from collections.abc import Iterator

import pytest

from sparsemend.repairs import evidence


@pytest.fixture(scope="module")
def ample_evidence() -> Iterator[None]:
    """As if any number of inputs spoke for what is fitted: tests of the formulas need few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "_ENOUGH", 1e-30)
        yield
