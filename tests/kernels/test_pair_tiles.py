"""Which tiles of keys the engines over pairs visit: each once, and without masks only where none is needed."""

import pytest
import torch
import triton
import triton.language as tl
from fer_fast.kernels.common.pair_tiles import tile_range, tile_start

from fer_fast.dispatch import triton_runs_on
from triton_hostile import DEVICE

pytestmark = pytest.mark.skipif(not triton_runs_on(DEVICE), reason="Triton does not run here")


@triton.jit
def visit(
    seen, count, plain, OWN: tl.constexpr, INTERIOR: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Counts visits in seen (row tiles, keys beyond the last included)."""
    row_tile, part = tl.program_id(0), tl.program_id(1)
    first_row = row_tile * BLOCK_M
    seen += row_tile * (count + 2 * BLOCK_N)
    first, last = tile_range(count, first_row, part, tl.num_programs(1), plain != 0, OWN, INTERIOR, BLOCK_M, BLOCK_N)
    for tile in range(first, last):
        start = tile_start(tile, count, first_row, plain != 0, OWN, INTERIOR, BLOCK_M, BLOCK_N)
        tl.atomic_add(seen + start + tl.arange(0, BLOCK_N), 1)


def visits(count: int, parts: int, plain: bool, own: bool, interior: bool, block_m: int, block_n: int) -> torch.Tensor:
    """How often each key (columns, some beyond the last) is met with each tile of `block_m` rows."""
    row_tiles = triton.cdiv(count, block_m) if own else 3
    seen = torch.zeros(row_tiles, count + 2 * block_n, dtype=torch.int32, device=DEVICE)
    visit[row_tiles, parts](seen, count, int(plain), own, interior, block_m, block_n)
    return seen.cpu()


@pytest.mark.parametrize(("block_m", "block_n"), [(16, 16), (32, 16), (16, 32)])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("own", [True, False], ids=["batch", "bank"])
@pytest.mark.parametrize("count", [1, 17, 64, 70])
def test_every_key_is_visited_once_and_masked_where_it_must_be(count, own, parts, block_m, block_n):
    for plain in (True, False):
        bare = visits(count, parts, plain, own, True, block_m, block_n)
        careful = visits(count, parts, plain, own, False, block_m, block_n)
        assert torch.equal((bare + careful)[:, :count], torch.ones_like(bare[:, :count]))
        assert bare[:, count:].sum() == 0  # no row beyond the last without a mask
        if not plain:
            assert bare.sum() == 0
        elif own:
            rows, keys = torch.arange(len(bare))[:, None], torch.arange(count)[None, :]
            assert bare[:, :count][(keys // block_m == rows)].sum() == 0  # nor a pair of a row with itself


def test_little_is_visited_with_care():
    careful = visits(70, 2, True, True, False, 16, 16)
    assert (careful.sum(1) <= 2 * 16).all()  # the diagonal and the last tile
