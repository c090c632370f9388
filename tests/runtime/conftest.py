"""What tests of the runtime share."""

import pytest

from sparsemend.runtime.steps import library


@pytest.fixture(scope="session")
def kernels():
    """The kernels; skips where they are not built."""
    found = library()
    if found is None:
        pytest.skip("the kernels are not built: python -m sparsemend.runtime.build")
    return found
