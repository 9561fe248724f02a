"""A float32 product over few rows; run as a program, it is compiled for NVIDIA chips, one JSON object a line."""

import json

import triton
import triton.language as tl
from fer_fast.bench.audit_resources import CHIPS
from fer_fast.kernels.host.aot import aot_case
from fer_fast.kernels.host.chips import LEAST_ROWS

PRECISIONS = ("tf32", "ieee")


@triton.jit
def dot_over_rows(a_ptr, b_ptr, out_ptr, ROWS: tl.constexpr, PRECISION: tl.constexpr):
    """a (16, ROWS) times b (ROWS, 64), as the class table's sums are taken."""
    classes, rows, columns = tl.arange(0, 16), tl.arange(0, ROWS), tl.arange(0, 64)
    a = tl.load(a_ptr + classes[:, None] * ROWS + rows[None, :])
    b = tl.load(b_ptr + rows[:, None] * 64 + columns[None, :])
    tl.store(out_ptr + classes[:, None] * 64 + columns[None, :], tl.dot(a, b, input_precision=PRECISION))


def compiled(target: tuple, rows: int, precision: str) -> str:
    """What the compiler says against it."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = dict.fromkeys(("a_ptr", "b_ptr", "out_ptr"), "*fp32")
    _, *source, options = aot_case(
        "dot", dot_over_rows, types, {"ROWS": rows, "PRECISION": precision}, {"num_warps": 4}
    )
    try:
        triton.compile(ASTSource(*source), target=GPUTarget(*target), options=options)
    except triton.CompilationError as error:
        return str(error).splitlines()[-1]
    return ""


if __name__ == "__main__":
    for name, chip in CHIPS.items():
        for rows in (LEAST_ROWS, LEAST_ROWS // 2) if chip.target[0] == "cuda" else ():
            said = {precision: compiled(chip.target, rows, precision) for precision in PRECISIONS}
            print(json.dumps({"chip": name, "rows": rows, **said}), flush=True)
