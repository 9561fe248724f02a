"""Distances to all centers but the own, or their gradient."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows, store_rows


@triton.jit(do_not_specialize=["n", "num_classes"])
def anti_center(
    x, y, centers, outlier, mean, rest, grad, output, n, num_classes, d, x_stride, center_stride,
    GRADIENT: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """S_i (n,), or with GRADIENT dx (n, d), through the outlier o, and the mean m and the spread of all centers but it.

    In float64, where of three centers and more what c_y takes off leaves digits enough; of two m is left out with it.
    """
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    label = tl.load(y + rows, mask=rows < n, other=0).to(tl.int64)  # times a stride
    known = (label >= 0) & (label < num_classes)
    others = (num_classes - 1).to(tl.float64)
    farthest = tl.load(outlier)
    besides = (label != farthest)[:, None]
    own_counts = besides & (num_classes > 2)
    mid_counts = ~besides | (num_classes > 2)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, d, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        inside = (columns < d)[None, :]
        row = load_rows(x, first, rows < n, x_stride, columns, d).to(tl.float64)
        own_at = centers + (label * center_stride)[:, None] + columns[None, :]
        own = row - tl.load(own_at, mask=known[:, None] & inside, other=float("nan")).to(tl.float64)
        mid = row - tl.load(mean + columns, mask=columns < d, other=0.0)[None, :]
        far_at = centers + farthest * center_stride + columns[None, :]
        far = row - tl.load(far_at, mask=inside, other=0.0).to(tl.float64)
        if GRADIENT:
            g = tl.load(grad + rows, mask=rows < n, other=0.0).to(tl.float64)
            dx = tl.where(mid_counts, others * mid, 0.0) - tl.where(own_counts, own, 0.0) + tl.where(besides, far, 0.0)
            store_rows(output, first, d, columns, d, n, (2 * g)[:, None] * dx)
        else:
            s = tl.where(mid_counts, others * mid * mid, 0.0) - tl.where(own_counts, own * own, 0.0)
            total += tl.sum(tl.where(inside, s + tl.where(besides, far * far, 0.0), 0.0), 1)
    if not GRADIENT:
        s = total + tl.load(rest)
        tl.store(output + rows, tl.where(known, s, float("nan")).to(tl.float32), mask=rows < n)
