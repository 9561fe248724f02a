"""Each center's distance to their mean."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows


@triton.jit(do_not_specialize=["num_classes"])
def center_spreads(centers, mean, spreads, num_classes, d, center_stride, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """‖c_j - c̄‖² (C,) in float64."""
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, d, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        center = load_rows(centers, first, rows < num_classes, center_stride, columns, d).to(tl.float64)
        difference = center - tl.load(mean + columns, mask=columns < d, other=0.0)[None, :]
        total += tl.sum(difference * difference, 1)
    tl.store(spreads + rows, total, mask=rows < num_classes)
