"""The fewest rows a tile may have, by Triton's version: what the compiler takes and the interpreter computes."""

from pathlib import Path

import pytest
import torch

from fer_fast.dispatch import triton_runs_on

if not triton_runs_on("cpu"):
    pytest.skip("needs Triton, and its interpreter", allow_module_level=True)

from fer_fast.bench.child import lines
from fer_fast.kernels.configs import LEAST_ROWS

from dot_rows import PRECISIONS, dot_over_rows


def test_the_rule_is_what_the_compiler_says():
    rows = lines("dot_rows", TRITON_INTERPRET="0", PYTHONPATH=str(Path(__file__).parent))
    taken = {(row["chip"], row["rows"], precision): row[precision] for row in rows for precision in PRECISIONS}
    assert {said for (_, count, _), said in taken.items() if count == LEAST_ROWS} == {""}
    refused = {said for (_, count, _), said in taken.items() if count < LEAST_ROWS}
    assert refused == {f"Input shapes should have M >= 1, N >= 1 and K >= {LEAST_ROWS}"}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_interpreter_sums_over_as_few(precision):
    a, b = torch.randn(16, LEAST_ROWS), torch.randn(LEAST_ROWS, 64)
    out = torch.full((16, 64), float("nan"))
    dot_over_rows[(1,)](a, b, out, LEAST_ROWS, precision)
    torch.testing.assert_close(out, a @ b)
