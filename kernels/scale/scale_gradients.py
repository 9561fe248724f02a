"""Up to three tensors times one scalar."""

import triton
import triton.language as tl


@triton.jit
def _blocks(source, target, size, factor, BLOCK: tl.constexpr):
    """The blocks of a tensor that are to be written: none where it is its own target and the factor is one."""
    done = (factor == 1.0) & (source.to(tl.int64) == target.to(tl.int64))
    return tl.where(done, 0, tl.cdiv(size, BLOCK))


@triton.jit
def _scale_part(source, target, size, block, factor, BLOCK: tl.constexpr):
    at = block * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    values = tl.load(source + at, at < size).to(tl.float32)
    # In float32: a loss scale of 65 536 is more than float16 holds.
    tl.store(target + at, values * factor, at < size)


@triton.jit(do_not_specialize=["size_0", "size_1", "size_2"])
def scale_gradients(
    source_0, target_0, size_0, source_1, target_1, size_1, source_2, target_2, size_2, factor, BLOCK: tl.constexpr
):  # fmt: skip
    """target = source · factor for three flat tensors, whose blocks lie one after the other along the programs."""
    scalar = tl.load(factor).to(tl.float32)
    first = _blocks(source_0, target_0, size_0, scalar, BLOCK)
    second = first + _blocks(source_1, target_1, size_1, scalar, BLOCK)
    last = second + _blocks(source_2, target_2, size_2, scalar, BLOCK)
    for block in range(tl.program_id(0), last, tl.num_programs(0)):
        if block < first:
            _scale_part(source_0, target_0, size_0, block, scalar, BLOCK)
        elif block < second:
            _scale_part(source_1, target_1, size_1, block - first, scalar, BLOCK)
        else:
            _scale_part(source_2, target_2, size_2, block - second, scalar, BLOCK)
