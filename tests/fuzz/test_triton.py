"""500 random cases of the kernels in Triton's interpreter, which takes a quarter of a second for each."""

import pytest
import torch

from fer_fast.dispatch import triton_runs_on
from fuzz_rule import failures

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PARTS, SEED, CASES = 25, 0, 500


@pytest.mark.skipif(DEVICE == "cuda" or not triton_runs_on(DEVICE), reason="cases are drawn for Triton's interpreter")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, where numbers overflow
@pytest.mark.parametrize("part", range(PARTS))
def test_random_cases(part):
    size = CASES // PARTS
    assert not list(failures(SEED, range(part * size, (part + 1) * size), "triton"))
