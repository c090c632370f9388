"""Property tests here are timed by nobody: a busy machine must not fail them."""

import pytest
from hypothesis import settings

from sparsemend.runtime.steps import library

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(scope="session")
def kernels():
    """The kernels; skips where they are not built."""
    found = library()
    if found is None:
        pytest.skip("the kernels are not built: python -m sparsemend.runtime.build")
    return found
