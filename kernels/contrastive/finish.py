"""The loss and the gradient's factor, from the parts that `combine` leaves."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["tiles"])
def finish(partial, loss, factor, tiles, scale, MEAN: tl.constexpr, BLOCK: tl.constexpr):
    """One program adds up the losses and the anchors that count, (2, tiles), in fixed order. dz's factor is `scale`,
    over |anchors| for a mean."""
    total = tl.zeros((BLOCK,), tl.float32)
    count = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, tiles, BLOCK):
        parts = start + tl.arange(0, BLOCK)
        total += tl.load(partial + parts, mask=parts < tiles, other=0.0)
        count += tl.load(partial + tiles + parts, mask=parts < tiles, other=0.0)
    divisor = 1.0
    if MEAN:
        divisor = tl.maximum(tl.sum(count), 1.0)
    tl.store(loss, tl.sum(total) / divisor)
    tl.store(factor, scale / divisor)
