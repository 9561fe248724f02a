"""Groups of processes, started once for all tests of a worker."""

import pytest

import processes


@pytest.fixture(scope="session")
def two():
    with processes.group(2) as group:
        yield group


@pytest.fixture(scope="session")
def four():
    with processes.group(4) as group:
        yield group
