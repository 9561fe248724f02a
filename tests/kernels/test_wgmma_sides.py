"""sm_90's wgmma with a side of 16 or 32 was reported to corrupt kernels of several products: pytorch/helion 1905."""

import json
import re
from pathlib import Path

import pytest
from fer_fast.bench import child

from fer_fast.dispatch import triton_runs_on


def sides(losses: tuple[str, ...], widths: tuple[int, ...]) -> dict[str, list[int]]:
    """The smaller sides of every wgmma, by kernel, of the class table's losses with 33 to 64 classes."""
    import triton
    from fer_fast.kernels.class_table import aot
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    aot._SHAPES = [(64, d) for d in widths]
    found = {}
    for name, kernel, signature, constexprs, attrs, options in aot.aot_cases("sm90"):
        kernel_name, loss, dtype, *_ = name.split("-")
        if kernel_name in ("rows", "sums", "small") and loss in losses and dtype in ("bf16", "fp32"):
            source = ASTSource(kernel, signature, constexprs, attrs)
            ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
            products = re.findall(r"wgmma\.mma_async\S*\.m(\d+)n(\d+)k", ptx)
            found[name] = sorted({min(int(m), int(n)) for m, n in products})
    return found


@pytest.mark.skipif(not triton_runs_on("cpu"), reason="needs Triton")
def test_products_over_64_classes_have_no_side_below_64():
    here = str(Path(__file__).parent)
    (found,) = child.lines(Path(__file__).stem, PYTHONPATH=here, TRITON_INTERPRET="0")
    assert {side for sides in found.values() for side in sides} == {64}, found


if __name__ == "__main__":
    print(json.dumps(sides(("softmax", "center"), (16, 512))))
