"""What the tests change in Triton's interpreter for speed changes no result."""

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import ReduceOps

import triton_interpreter

if torch.cuda.is_available():
    pytest.skip("kernels are compiled here", allow_module_level=True)


@triton.jit
def mean_and_count(mean, count, other, others):
    total = count + others
    return mean + (other - mean) * (others / total), total


@triton.jit
def reduce_pairs(x, y, out, counts, AXIS: tl.constexpr, KEEP: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    places = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    means, totals = tl.reduce((tl.load(x + places), tl.load(y + places)), AXIS, mean_and_count, keep_dims=KEEP)
    at = tl.expand_dims(tl.arange(0, N if AXIS == 0 else M), AXIS) if KEEP else tl.arange(0, N if AXIS == 0 else M)
    tl.store(out + at, means)
    tl.store(counts + at, totals)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_lanes_are_reduced_as_numbers_are(axis, keep, dtype, monkeypatch):
    x, y = torch.randn(8, 16, dtype=dtype), torch.rand(8, 16, dtype=dtype) + 1
    x[3, 5], x[4, 6] = torch.nan, torch.inf

    def run():
        out = torch.zeros(2, 16, dtype=dtype)
        reduce_pairs[(1,)](x, y, *out, axis, keep, 8, 16)
        return out

    assert ReduceOps.generic_reduce is triton_interpreter.reduce_lanes
    lanes = run()
    monkeypatch.setattr(ReduceOps, "generic_reduce", triton_interpreter.REDUCE_NUMBERS)
    numbers = run()
    assert torch.equal(lanes.view(torch.uint8), numbers.view(torch.uint8))
    assert lanes[1, : 16 - 8 * axis].ge(8).all()


@triton.jit
def scale(x):
    return x * 2


@triton.jit
def scale_all(x, N: tl.constexpr):
    places = x + tl.arange(0, N)
    tl.store(places, scale(scale(tl.load(places))))


def test_a_kernel_after_another_finds_the_language_patched():
    x = torch.ones(8)
    for _ in range(2):
        scale_all[(1,)](x, 8)
    assert x.eq(16).all()
