"""The loss, from the classes' terms and the nearest two means."""

import triton
import triton.language as tl

from .candidates import distance, next_widest


@triton.jit(do_not_specialize=["n"])
def total_loss(
    means, values, partners, losses, classes, nearest, hinge_slope, loss, n, d, alpha, beta, margin,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The loss (), from every class's term (n,) and the nearest two means; nearest (2,), and β where [·]₊ is open."""
    count = tl.load(classes).to(tl.int32)
    intra = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, count, BLOCK):
        numbers = start + tl.arange(0, BLOCK)
        intra += tl.load(losses + numbers, mask=numbers < count, other=0.0)
    value, code = tl.full((), float("inf"), tl.float32), tl.full((), -1, tl.int64)
    value, code = next_widest(values, partners, 0, count, n, value, code, 1, 1, BLOCK)
    total = alpha * tl.sum(intra)
    slope = 0.0
    if value > float("-inf"):
        a, b = code // n, code % n
        gap = margin - distance(means + a * d, means + b * d, d, BLOCK_D)
        total += tl.where(gap <= 0, 0.0, beta * gap)
        slope = tl.where(gap <= 0, 0.0, beta)
        tl.store(nearest, a)
        tl.store(nearest + 1, b)
    tl.store(hinge_slope, slope)
    tl.store(loss, total)
