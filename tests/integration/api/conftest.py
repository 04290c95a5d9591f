import resource
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def many_files() -> Iterator[None]:
    """This process may open 8,192 files, if its hard limit allows that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
