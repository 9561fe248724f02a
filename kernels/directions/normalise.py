"""Rows to unit length."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows, store_rows
from .rows import unit_rows

FAR = tl.constexpr(1e30)  # ‖u‖² of a row that is out: of no class, it is then farther from all than any margin


@triton.jit(do_not_specialize=["n", "rows_of_y", "num_classes"])
def normalise_rows(
    x, y, difficulty, u, weights, part, n, rows_of_y, d, x_stride, num_classes,
    STANDARDISE: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """u (n, d), and weights (rows_of_y,): w(y_i) of the class, or else ‖u_i‖², which is 0 or 1 but for rounding.

    With a group `part` (:class:`.launch.TakingPart`) a negative label takes its row out.
    """
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    columns = tl.arange(0, BLOCK_D)
    tile = load_rows(x, first, rows < n, x_stride, columns, d).to(tl.float32)
    if part is not None:
        label = tl.load(y + rows, mask=rows < n, other=-1)
        out = label < 0
        tile = tl.where(out[:, None], 0.0, tile)
        tl.store(part.labels + rows, tl.where(out, -1 - rows, label), mask=rows < n)
        tl.store(part.counts + tl.program_id(0), tl.sum((label >= 0).to(tl.float32)))
    directions = unit_rows(tile, columns, d, STANDARDISE)[0]
    store_rows(u, first, d, columns, d, n, directions)
    if WEIGHTED:
        label = tl.load(y + rows, mask=rows < rows_of_y, other=0)
        known = (label >= 0) & (label < num_classes)
        weight = tl.load(difficulty + label, mask=known, other=float("nan")).to(tl.float32)
    else:
        weight = tl.sum(directions * directions, 1)
        if part is not None:
            weight = tl.where(out, FAR, weight)
    tl.store(weights + rows, weight, mask=rows < rows_of_y)
