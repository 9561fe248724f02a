"""One visit of rows and labels."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows, number

LONGEST = tl.constexpr(2.0**80)  # squared: weights of up to 2^60 times the rows of a large bank stay finite
MARGIN = tl.constexpr(1.002)  # TF32 rounds the factors of a product by up to 2⁻¹¹ each


@triton.jit
def _largest(rows_ptr, y, labels, count, d, stride, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """The largest squared length in a program's share of rows; inf for a row that is very long or left out, or whose
    label is long; NaN for one that is not finite, unless it is left out."""
    largest = tl.zeros((BLOCK,), tl.float32)
    spoiled = tl.zeros((BLOCK,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(count, BLOCK), tl.num_programs(0)):
        rows = tile * BLOCK + tl.arange(0, BLOCK)
        valid = rows < count
        squared = tl.zeros((BLOCK,), tl.float32)
        if rows_ptr is not None:
            for start in range(0, d, BLOCK_D):
                row = load_rows(rows_ptr, tile * BLOCK, valid, stride, start + tl.arange(0, BLOCK_D), d)
                squared += tl.sum(row.to(tl.float32) * row.to(tl.float32), 1)
        if y is not None:
            label = tl.load(y + rows, mask=valid, other=0)
            if rows_ptr is not None:
                spoiled += tl.where(label < 0, 0.0, squared * 0.0)  # NaN where a row is not finite
                squared = tl.where(label < 0, float("inf"), squared)
            if labels is not None:
                # Of labels alone, negative ones that tell rows apart.
                left_out = label if rows_ptr is None else -1
                tl.store(labels + rows, tl.where(label < 0, left_out, label & 0x7FFFFFFF).to(tl.int32), mask=valid)
                squared = tl.where(label.to(tl.int32) == label, squared, float("inf"))
        largest = tl.maximum(largest, tl.where(squared < LONGEST, squared, float("inf")))  # NaN is not below
    return tl.max(largest) + tl.sum(spoiled)


@triton.jit(do_not_specialize=["n", "m"])
def survey_rows(
    z, y, labels, bank_z, bank_y, bank_labels, bounds, n, m, scale, d, z_stride, bank_stride,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The bound of each program's share (programs,), and labels (n,), bank_labels (m,) in int32."""
    largest = _largest(z, y, labels, n, d, z_stride, BLOCK, BLOCK_D)
    if bank_y is not None:
        of_bank = _largest(bank_z, bank_y, bank_labels, m, d, bank_stride, BLOCK, BLOCK_D)
        largest = tl.maximum(largest, of_bank, propagate_nan=tl.PropagateNan.ALL)
    tl.store(bounds + tl.program_id(0), largest * (number(scale) * MARGIN))
