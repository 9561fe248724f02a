"""What depends on the versions installed, rows of a tile, an interpreter that numpy broke, what Triton 3.5 takes; and
what only a chip's compiler does."""

import ast
from pathlib import Path

import numpy
import pytest
import torch

from fer_fast import dispatch
from fer_fast.dispatch import resolve, triton_runs_on

if not triton_runs_on("cpu"):
    pytest.skip("needs Triton, and its interpreter", allow_module_level=True)

import triton
from fer_fast.bench.child import lines
from fer_fast.kernels.host.chips import LEAST_ROWS

from dot_rows import PRECISIONS, dot_over_rows
from fer_fast import kernels


def test_the_rule_is_what_the_compiler_says():
    rows = lines("dot_rows", TRITON_INTERPRET="0", PYTHONPATH=str(Path(__file__).parents[1] / "helpers"))
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


@pytest.mark.parametrize(
    ("of_triton", "of_numpy", "runs"), [("3.6.0", "2.4.1", False), ("3.7.0", "2.4.1", True), ("3.5.1", "2.3.5", True)]
)
def test_an_interpreter_that_numpy_broke_is_named(monkeypatch, of_triton, of_numpy, runs):
    monkeypatch.setattr(triton, "__version__", of_triton)
    monkeypatch.setattr(numpy, "__version__", of_numpy)
    monkeypatch.setattr(dispatch, "interpreter_fault", dispatch.interpreter_fault.__wrapped__)  # it remembers
    if runs:
        assert resolve("triton", torch.device("cpu")) == "triton"
        return
    with pytest.raises(ValueError, match=r"here: the interpreter of Triton 3.6.0 needs numpy below 2.4, not 2.4.1$"):
        resolve("triton", torch.device("cpu"))


def test_no_kernel_takes_the_largest_of_constants():
    # Within a kernel that another calls Triton 3.5 makes a tensor of `max(16, K)`, which no shape may hold.
    found = []
    for file in Path(kernels.__path__[0]).rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef) and any("jit" in ast.unparse(d) for d in function.decorator_list):
                names = [
                    node.func.id for node in ast.walk(function) if isinstance(node, ast.Call) and _is_name(node.func)
                ]
                found += [(file.name, function.name, name) for name in names if name in ("max", "min")]
    assert found == []


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def test_no_kernel_takes_a_number_from_itself():
    # On a chip x - x of a product x is one fused step, and leaves its rounding: on an H200 rows of one column, 7198.3
    # long, were 1.00005 long when they should have been 1. The interpreter does not fuse.
    found = []
    for file in Path(kernels.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            difference = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)
            if difference and ast.unparse(node.left) == ast.unparse(node.right):
                found.append(f"{file.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []
