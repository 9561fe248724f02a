"""The loss, the gradient's factor and the derivative by the temperature, from the parts that `combine` leaves."""

import triton
import triton.language as tl

from ..common.pair_tiles import number


@triton.jit
def _sum(parts, count, BLOCK: tl.constexpr):
    """In fixed order."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(parts + at, mask=at < count, other=0.0)
    return tl.sum(total)


@triton.jit(do_not_specialize=["tiles"])
def finish(
    partial, loss, factor, slope, tiles, inverse, largest, MEAN: tl.constexpr, RAISE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """One program adds up the parts, (3, tiles). Weights were divided by `largest`, and shares and pulls raised by
    2^RAISE; `inverse` is 1/τ. A mean over no weight is 0."""
    unit = number(largest)
    if MEAN:
        weight = _sum(partial + tiles, tiles, BLOCK)
        unit /= tl.where(weight == 0, 1.0, weight)
    if loss is not None:
        tl.store(loss, _sum(partial, tiles, BLOCK) * unit)
    tl.store(factor, number(inverse) * 2.0**-RAISE * unit)
    if slope is not None:
        tl.store(slope, -number(inverse) * unit * _sum(partial + 2 * tiles, tiles, BLOCK))
