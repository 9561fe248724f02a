"""9 500 random cases of the blocked engines, and of the reference against itself; `python -m tests.fuzz` draws more."""

import pytest

from fuzz_rule import failures

PARTS, SEED = 25, 0


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(("backend", "cases"), [("blocked", 8500), ("reference", 1000)])
def test_random_cases(backend, cases, part):
    size = cases // PARTS
    assert not list(failures(SEED, range(part * size, (part + 1) * size), backend))
