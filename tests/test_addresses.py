"""In Triton's interpreter a kernel that leaves the memory of an argument is refused; on a chip only a tool sees it."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

if torch.cuda.is_available():
    pytest.skip("kernels are compiled here", allow_module_level=True)


class Pair(NamedTuple):
    left: object
    right: object


@triton.jit
def copy_rows(x, out, n, first, BLOCK: tl.constexpr):
    places = first + tl.arange(0, BLOCK)
    tl.store(out + tl.arange(0, BLOCK), tl.load(x + places, mask=places < n))


@triton.jit
def read(pair, place):
    return tl.load(pair.right + place)


@triton.jit
def read_in_a_device_function(pair, out, place):
    tl.store(out, read(pair, place))


@triton.jit
def write(out, place, value):
    tl.store(out + place, value)


@triton.jit
def add(out, place):
    tl.atomic_add(out + place, 1)


@triton.jit
def swap(out, place):
    tl.atomic_cas(out + place, 0, 1)


def refused(says: str):
    return pytest.raises(InterpreterError, match=says)


def line_of(text: str) -> str:
    lines = Path(__file__).read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if text in line)
    return re.escape(f"{Path('tests', 'test_addresses.py')}:{number}: ")


@pytest.mark.parametrize(
    ("n", "first", "lanes", "which"),
    [(9, 1, 1, "1 past its last"), (24, 9, 8, "2 past its last"), (9, -2, 2, "2 before its first")],
)
def test_lanes_outside_an_argument_are_named(n, first, lanes, which):
    x, out = torch.arange(32.0)[8:16], torch.zeros(8)  # beyond it is memory of the same storage
    at = line_of("mask=places < n")
    with refused(rf"copy_rows at {at}{lanes} of 8 lanes outside a torch.float32 tensor of shape \(8,\).* {which}"):
        copy_rows[(1,)](x, out, n, first, 8)
    assert out.eq(0).all()


def test_masked_lanes_may_lie_anywhere():
    x, out = torch.arange(8.0), torch.zeros(8)
    for n, first, expected in ((8, 1, [*range(1, 8), 0]), (8, 2**40, [0] * 8), (8, 4, [4, 5, 6, 7, 0, 0, 0, 0])):
        copy_rows[(1,)](x, out, n, first, 8)
        assert out.tolist() == expected


def test_an_empty_argument_has_no_element():
    with refused(r"1 of 1 lanes outside a torch.float32 tensor of shape \(0,\)"):
        copy_rows[(1,)](torch.zeros(0), torch.zeros(8), 1, 0, 8)


def test_another_argument_is_no_part_of_one():
    both = torch.arange(16.0)
    with refused("8 of 8 lanes outside .* one is 1 past its last element"):
        copy_rows[(1,)](both[:8], both[8:], 16, 8, 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.bool])
def test_groups_strides_dtypes_and_device_functions(dtype):
    table, out = torch.ones(3, 5, dtype=dtype), torch.zeros((), dtype=dtype)
    pair = Pair(table, table[:, 1:3])
    read_in_a_device_function[(1,)](pair, out, 11)
    assert out
    with refused(f"read_in_a_device_function at {line_of('tl.load(pair.right')}1 of 1 lanes .*1 past its last"):
        read_in_a_device_function[(1,)](pair, out, 12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.bool])
def test_writes(dtype):
    out = torch.zeros(4, dtype=dtype)
    write[(1,)](out[:3], 2, 1)
    assert out.tolist() == [0, 0, 1, 0]
    with refused("write at .*1 past its last"):
        write[(1,)](out[:3], 3, 1)
    assert out.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(("kernel", "dtype"), [(add, torch.int32), (add, torch.float32), (swap, torch.int32)])
def test_atomics(kernel, dtype):
    out = torch.zeros(4, dtype=dtype)
    kernel[(1,)](out[:3], 2)
    assert out.tolist() == [0, 0, 1, 0]
    with refused(f"{kernel.__name__} at .*1 past its last"):
        kernel[(1,)](out[:3], 3)
    assert out.tolist() == [0, 0, 1, 0]
