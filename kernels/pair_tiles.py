"""What the engines over pairs of rows share: tile loads, similarity tiles, and how a launch is laid out on a chip."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def row_pointers(base, first, stride, columns, BLOCK: tl.constexpr):
    """Pointers (BLOCK, D) to the rows from `first` on of a matrix whose rows lie `stride` apart.

    The first row's offset is 64-bit, as a bank of 8.4 M rows of 256 passes 2³¹ elements; within the tile 32 bits do,
    and take half the registers.
    """
    return base + tl.cast(first, tl.int64) * stride + (tl.arange(0, BLOCK)[:, None] * stride + columns[None, :])


@triton.jit
def load_rows(base, first, valid, stride, columns, width):
    """Rows (R, D) from `first` on; zero where not `valid` (R,) or past the width."""
    mask = valid[:, None] & (columns < width)[None, :]
    return tl.load(row_pointers(base, first, stride, columns, valid.shape[0]), mask=mask, other=0.0)


@triton.jit
def store_rows(base, first, stride, columns, width, count, tile):
    """Store rows (R, D) from `first` on, of `count` rows, in the dtype of the matrix.

    In 64 bits throughout: written like the loads, offsets and masks would be taken for the same values as theirs and
    held in registers across the loop between the two.
    """
    rows = tl.cast(first, tl.int64) + tl.arange(0, tile.shape[0])
    places = columns.to(tl.int64)
    inside = (rows < count)[:, None] & (places < width)[None, :]
    tl.store(base + rows[:, None] * stride + places[None, :], tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def share(count, part, parts, BLOCK: tl.constexpr):
    """The range [first, last) of `count` rows that falls to one of `parts` programs, in whole tiles."""
    tiles = tl.cdiv(count, BLOCK).to(tl.int64)
    first = tiles * part // parts * BLOCK
    last = tiles * (part + 1) // parts * BLOCK
    return first.to(tl.int32), last.to(tl.int32)


@triton.jit
def chunked_similarities(
    a, first_row, row_valid, a_stride, k, first_key, key_valid, k_stride, width,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of A Kᵀ (R, N) in float32, in the dtype of A, over chunks of BLOCK_K columns."""
    s = tl.zeros((row_valid.shape[0], key_valid.shape[0]), tl.float32)
    for start in range(0, width, BLOCK_K):
        columns = start + tl.arange(0, BLOCK_K)
        row_tile = load_rows(a, first_row, row_valid, a_stride, columns, width)
        key_tile = load_rows(k, first_key, key_valid, k_stride, columns, width).to(row_tile.dtype)
        s = tl.dot(row_tile, tl.trans(key_tile), s, input_precision=PRECISION)
    return s


@triton.jit
def similarities(
    anchors,
    anchor_base,
    first_row,
    row_valid,
    anchor_stride,
    key_base,
    first_key,
    key_valid,
    key_stride,
    columns,
    width,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile of A Kᵀ (R, N) in float32, and the keys' columns (N, D) that the gradient's product takes.

    Rows that fit one chunk (width <= BLOCK_K = D) stay on chip as anchors, and are loaded once as keys for both
    products; wider rows are multiplied chunk by chunk, and the keys' columns come a second time, from cache.
    """
    if (columns.shape[0] == BLOCK_K) and (width <= BLOCK_K):
        key_tile = load_rows(key_base, first_key, key_valid, key_stride, columns, width).to(anchors.dtype)
        s = tl.dot(anchors, tl.trans(key_tile), input_precision=PRECISION)
    else:
        s = chunked_similarities(
            anchor_base, first_row, row_valid, anchor_stride, key_base, first_key, key_valid, key_stride, width,
            BLOCK_K, PRECISION,
        )  # fmt: skip
        key_tile = load_rows(key_base, first_key, key_valid, key_stride, columns, width).to(anchors.dtype)
    return s, key_tile


@triton.jit
def compensated(total, error, term):
    """Kahan's sum: total + term, and the rounding error to take off the next term."""
    term -= error
    new_total = total + term
    return new_total, (new_total - total) - term


@triton.jit
def squared_distances(a, rows, row_valid, a_stride, b, keys, key_valid, b_stride, width, CHUNK: tl.constexpr):
    """Σ_c (a_ci - b_cj)² (R, N) of tables laid out by :func:`columns_first`.

    Differences, so that duplicates are at exactly 0; summed in chunks, so that the error does not grow with the width.
    """
    total = tl.zeros((rows.shape[0], keys.shape[0]), tl.float32)
    error = tl.zeros((rows.shape[0], keys.shape[0]), tl.float32)
    for _start in range(0, width, CHUNK):
        part = tl.zeros((rows.shape[0], keys.shape[0]), tl.float32)
        for _ in tl.static_range(CHUNK):
            left = tl.load(a + rows, mask=row_valid, other=0.0)
            right = tl.load(b + keys, mask=key_valid, other=0.0)
            difference = left[:, None] - right[None, :]
            part += difference * difference
            a += a_stride
            b += b_stride
        total, error = compensated(total, error, part)
    return total


@triton.jit
def last_to_finish(counter, programs):
    """Whether all other programs have already passed here: one integer atomic; what they stored is then visible."""
    tl.debug_barrier()
    return tl.atomic_add(counter, 1) == programs - 1


class Tile(NamedTuple):
    """Anchors by keys by output columns; products are summed over chunks of `block_k` columns."""

    block_m: int
    block_n: int
    block_d: int
    block_k: int
    num_warps: int
    num_stages: int

    @property
    def constexprs(self) -> dict[str, int]:
        return {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_D": self.block_d, "BLOCK_K": self.block_k}

    @property
    def options(self) -> dict[str, int]:
        return {"num_warps": self.num_warps, "num_stages": self.num_stages}


FAMILIES = ("sm80", "sm89", "sm90", "sm100", "cdna")  # see `chip`
WIDE = 2**30  # in a table of tiles: rows of any width, multiplied chunk by chunk

# (chip family, product, widest row) of a sweep over keys, S tile and G K in one loop. Found by compiling: the largest
# that spill nothing, but for 8 or 16 bytes in a few cases where ptxas prefers 128 registers. The unit of sm_90 gets no
# side below 64, see issue 1905 of pytorch/helion.
SWEEP_TILES = {
    **{("cpu", kind, 32): Tile(16, 16, 32, 32, 4, 1) for kind in ("half", "tf32", "float32")},
    **{("cpu", kind, WIDE): Tile(16, 16, 64, 32, 4, 1) for kind in ("half", "tf32", "float32")},
    ("sm80", "half", 64): Tile(64, 64, 64, 64, 8, 2),
    ("sm80", "half", 128): Tile(64, 64, 128, 128, 8, 2),
    ("sm80", "half", 256): Tile(64, 64, 256, 256, 8, 2),
    ("sm80", "half", WIDE): Tile(64, 64, 128, 64, 8, 2),
    ("sm80", "tf32", 128): Tile(64, 32, 128, 128, 8, 2),
    ("sm80", "tf32", WIDE): Tile(64, 32, 128, 32, 8, 2),
    ("sm80", "float32", WIDE): Tile(64, 32, 128, 32, 8, 2),
    ("sm89", "half", 64): Tile(64, 64, 64, 64, 8, 2),
    ("sm89", "half", 128): Tile(64, 64, 128, 128, 8, 2),
    ("sm89", "half", 256): Tile(64, 32, 256, 256, 8, 2),
    ("sm89", "half", WIDE): Tile(64, 64, 128, 64, 8, 2),
    ("sm89", "tf32", 128): Tile(64, 32, 128, 128, 8, 2),
    ("sm89", "tf32", WIDE): Tile(64, 32, 128, 32, 8, 2),
    ("sm89", "float32", WIDE): Tile(64, 32, 128, 32, 8, 2),
    ("sm90", "half", 64): Tile(128, 64, 64, 64, 8, 3),
    ("sm90", "half", 128): Tile(128, 64, 128, 128, 8, 3),
    ("sm90", "half", 256): Tile(128, 64, 256, 256, 8, 3),
    ("sm90", "half", WIDE): Tile(128, 64, 128, 64, 8, 3),
    ("sm90", "tf32", 128): Tile(128, 64, 128, 128, 8, 2),
    ("sm90", "tf32", WIDE): Tile(64, 64, 64, 64, 4, 2),
    ("sm90", "float32", WIDE): Tile(64, 32, 128, 32, 8, 2),
    ("sm100", "half", 64): Tile(128, 64, 64, 64, 8, 3),
    ("sm100", "half", 128): Tile(128, 64, 128, 128, 8, 3),
    ("sm100", "half", 256): Tile(64, 64, 256, 256, 8, 2),
    ("sm100", "half", WIDE): Tile(128, 64, 128, 64, 8, 3),
    ("sm100", "tf32", 128): Tile(128, 64, 128, 128, 8, 2),
    ("sm100", "tf32", WIDE): Tile(64, 64, 64, 64, 4, 2),
    ("sm100", "float32", WIDE): Tile(32, 32, 128, 32, 4, 2),
    ("cdna", "half", 64): Tile(64, 64, 64, 64, 8, 1),
    ("cdna", "half", 128): Tile(64, 64, 128, 128, 8, 1),
    ("cdna", "half", 256): Tile(64, 32, 256, 256, 8, 1),
    ("cdna", "half", WIDE): Tile(64, 64, 128, 64, 8, 1),
    ("cdna", "float32", WIDE): Tile(64, 32, 128, 32, 8, 1),
}


@cache
def chip(device: torch.device) -> str:
    """The family whose tile settings fit: by matrix unit and shared memory. `cpu` is Triton's interpreter."""
    if device.type != "cuda":
        return "cpu"
    if torch.version.hip:
        return "cdna"
    major, minor = torch.cuda.get_device_capability(device)
    return {8: "sm80" if minor in (0, 7) else "sm89", 9: "sm90", 10: "sm100"}.get(major, "sm89")


@cache
def processors(device: torch.device) -> int:
    """Programs that run at once, one to a multiprocessor."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def product(dtype: torch.dtype) -> tuple[str, str]:
    """Kind of matrix product, as tile tables name it, and Triton's precision of a float32 one.

    float32 is multiplied in TF32 only where there is such a unit and PyTorch's own setting says so.
    """
    if dtype != torch.float32:
        return "half", "tf32"
    tf32 = torch.backends.cuda.matmul.allow_tf32 and torch.version.hip is None
    return ("tf32", "tf32") if tf32 else ("float32", "ieee")


def pick_tile(table: Mapping[tuple[str, str, int], Tile], family: str, kind: str, d: int) -> Tile:
    """The setting of the narrowest width that holds rows of `d` columns."""
    return table[family, kind, min(width for name, of, width in table if (name, of) == (family, kind) and width >= d)]


def pick_splits(tiles: int, key_tiles: int, slots: int) -> int:
    """Into how many parts the keys are split so that few tiles of anchors still fill the chip.

    The fewest parts that leave the smallest share of the last wave of programs idle.
    """
    most = max(1, min(key_tiles, max(slots // tiles, 4)))
    return min(range(1, most + 1), key=lambda parts: (-(-tiles * parts // slots) / parts, parts))


def dense_rows(x: Tensor) -> Tensor:
    """`x` with its columns side by side, as the kernels read it; rows may lie any near distance apart, also 0."""
    dense = (x.stride(-1) == 1 or x.shape[-1] == 1) and x.stride(-2) < 2**23
    return x if dense else x.contiguous()


def columns_first(x: Tensor, chunk: int) -> Tensor:
    """`x` (n, d) as (d, n) in float32 with rows of zeros up to a whole chunk, for :func:`squared_distances`."""
    n, d = x.shape
    table = torch.empty((triton.cdiv(d, chunk) * chunk, n), dtype=torch.float32, device=x.device)
    table[:d].copy_(x.mT)
    table[d:].zero_()
    return table


TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def aot_case(name: str, kernel, types: Mapping[str, object], constexprs: Mapping[str, object], tile: Tile) -> tuple:
    """(name, kernel, signature, constexprs, attrs, warps, stages) to compile a kernel ahead of time.

    As a launch finds them: pointers, widths and row strides are divisible by 16, other integers unknown.
    """
    signature = {argument: types.get(argument, "constexpr") for argument in kernel.arg_names}
    aligned = [
        place
        for place, (argument, of) in enumerate(signature.items())
        if str(of).startswith("*") or (of != "constexpr" and (argument == "d" or argument.endswith("_stride")))
    ]
    given = {argument: value for argument, value in constexprs.items() if argument in kernel.arg_names}
    attrs = {(place,): [["tt.divisibility", 16]] for place in aligned}
    return name, kernel, signature, given, attrs, tile.num_warps, tile.num_stages


def mark(name: str, representative: bool) -> str:
    """The name of a case for the audit, which compiles the marked ones in every run of the tests."""
    return f"{name}*" if representative else name


def products_to_compile(table: Mapping[tuple[str, str, int], Tile], family: str) -> Iterator[tuple]:
    """(name, tile, dtype, precision, width) of every setting of a chip family, for `aot_cases`."""
    for (of, kind, width), tile in table.items():
        for dtype in {"half": (torch.bfloat16, torch.float16)}.get(kind, (torch.float32,)) if of == family else ():
            d = min(width, 512)
            precision = "ieee" if kind == "float32" else "tf32"
            yield f"{TYPES[dtype]}-{kind}-{d}", tile, dtype, precision, d
