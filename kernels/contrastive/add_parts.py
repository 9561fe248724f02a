"""dz of few anchors, whose keys were split over programs."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["size", "parts"])
def add_parts(gradients, dz, size, parts, BLOCK: tl.constexpr):
    """dz = Σ of its parts (parts, size), in fixed order."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(parts):
        total += tl.load(gradients + tl.cast(part, tl.int64) * size + at, mask=at < size, other=0.0)
    tl.store(dz + at, total.to(dz.dtype.element_ty), mask=at < size)
