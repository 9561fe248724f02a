"""Kernels the audit has to tell apart, measured for sm_90 by the tests in a process whose Triton does not interpret."""

import json
from dataclasses import asdict

import triton
import triton.language as tl
from fer_fast.bench.audit_resources import measured
from fer_fast.kernels.host.aot import aot_case
from fer_fast.kernels.host.chips import launch_options


@triton.jit
def _products(x, y, out, N: tl.constexpr, SECOND: tl.constexpr):
    """A product with N columns, alone or followed by one that is wide enough."""
    rows, columns = tl.arange(0, 64), tl.arange(0, N)
    left = tl.load(x + rows[:, None] * 64 + rows[None, :])
    right = tl.load(y + rows[:, None] * N + columns[None, :])
    product = tl.dot(left, right)
    if SECOND:
        wide = tl.dot(product.to(left.dtype), tl.trans(right))
        tl.store(out + rows[:, None] * 64 + rows[None, :], wide)
    else:
        tl.store(out + rows[:, None] * N + columns[None, :], product)


@triton.jit
def _sums(x, out, n, SIZE: tl.constexpr, INSIDE: tl.constexpr):
    """Values that registers cannot hold, used in every turn of a loop or before and after it only."""
    places = tl.arange(0, SIZE)
    held, total, one = tl.load(x + places, volatile=True), tl.zeros((SIZE,), tl.float32), 0.0
    for turn in range(n):
        if INSIDE:
            total += held * tl.load(x + turn)
        else:
            one += tl.load(x + turn)
    tl.store(out + places, held + total + one)


TYPES = {"x": "*bf16", "y": "*bf16", "out": "*fp32"}
CASES = [
    aot_case("narrow-pair", _products, TYPES, {"N": 16, "SECOND": True}, launch_options(4)),
    aot_case("narrow-alone", _products, TYPES, {"N": 16, "SECOND": False}, launch_options(4)),
    aot_case("wide-pair", _products, TYPES, {"N": 64, "SECOND": True}, launch_options(4)),
]
for name, inside in (("spills-inside", True), ("spills-outside", False)):
    types, constexprs = {"x": "*fp32", "out": "*fp32", "n": "i32"}, {"SIZE": 1024, "INSIDE": inside}
    CASES.append(aot_case(name, _sums, types, constexprs, launch_options(1, max_registers=24)))

if __name__ == "__main__":
    for case in CASES:
        print(json.dumps(asdict(measured("test", "sm90", case))))
