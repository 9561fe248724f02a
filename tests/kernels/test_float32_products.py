"""Float32 products of bfloat16 pieces are as exact as plain ones, by what is known of how tensor cores add.

The interpreter multiplies in float32 whatever the precision, so the units are modelled here. Of one instruction the
products are exact; they and the sum so far are cut to one bit below those of a float32 number as large as the largest,
and their sum is cut to float32: Fasi, Higham, Mikaitis, Pranesh, Numerical behavior of NVIDIA tensor cores (2021), of
the A100. Only a chip can say what sm_90 does: `fer-fast bench gpu` asks it.
"""

import pytest
import torch
from fer_fast.kernels.contrastive.settings import BATCH_TILES
from fer_fast.kernels.host.sweep_tiles import SWEEP_TILES
from fer_fast.kernels.pairwise.settings import PAIR_TILES
from fer_fast.kernels.primitives.settings import MATRIX_GRADIENT_TILES, MATRIX_TILES

DEPTH = 16  # columns of one instruction
BITS_BELOW = 1
PIECES = ((1, 1), (2, 0), (0, 2), (1, 0), (0, 1), (0, 0))  # in Triton's order, smallest first
TABLES = (SWEEP_TILES, BATCH_TILES, PAIR_TILES, MATRIX_TILES, MATRIX_GRADIENT_TILES)
TILES = [entry for table in TABLES for entry in table.items()]
_SPLIT = [tile for _, tile in TILES if tile.precision == "bf16x6"]
CHUNKS = sorted(
    {tile.block_n for tile in _SPLIT} | {tile.block_k for tile in _SPLIT if tile.block_k}
)  # of both products


def towards_zero(exact):
    """Float64 numbers cut to float32."""
    rounded = exact.float()
    over = rounded.double().abs() > exact.abs()
    return torch.where(over, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded)


def on_tensor_cores(total, a, b):
    """total + a bᵀ (M, N) of bfloat16 numbers a (M, K) and b (N, K)."""
    for x, y in zip(a.double().split(DEPTH, 1), b.double().split(DEPTH, 1), strict=True):
        terms = torch.cat([x[:, None] * y[None], total.double()[..., None]], 2)
        largest = terms.abs().amax(2, keepdim=True)
        unit = torch.exp2(torch.floor(torch.log2(largest.clamp(min=1e-300))) - 23 - BITS_BELOW)
        total = towards_zero(((terms / unit).trunc() * unit).sum(2))
    return total


def pieces(x):
    found = []
    for _ in range(3):
        found.append(x.bfloat16().float())
        x = x - found[-1]
    return found


def six_products(a, b, chunk):
    """a bᵀ in float32: sums of `chunk` columns on the units, which a rounded addition joins."""
    total = torch.zeros(len(a), len(b))
    for x, y in zip(a.split(chunk, 1), b.split(chunk, 1), strict=True):
        part = torch.zeros_like(total)
        for i, j in PIECES:
            part = on_tensor_cores(part, pieces(x)[i], pieces(y)[j])
        total += part
    return total


def errors(found, a, b):
    """Root mean square and largest error."""
    wrong = found.double() - a.double() @ b.double().T
    return wrong.square().mean().sqrt().item(), wrong.abs().max().item()


def unit_rows(noise, d):
    """Two tables of rows (24, d) of length 1, alike but for the noise."""
    generator = torch.Generator().manual_seed(d)
    one = torch.randn(1, d, generator=generator)
    return [torch.nn.functional.normalize(one + noise * torch.randn(24, d, generator=generator)) for _ in range(2)]


def test_every_setting_says_how_float32_is_multiplied():
    for (_, kind, _), tile in TILES:
        assert tile.precision in {"float32": ("ieee", "bf16x6")}.get(kind, ("tf32",))


def test_pieces_leave_nothing():
    a, _ = unit_rows(1.0, 64)
    assert torch.equal(sum(piece.double() for piece in pieces(a)), a.double())


@pytest.mark.parametrize("noise", [0.1, 0.5, 100.0], ids=["alike", "near", "random"])
@pytest.mark.parametrize("d", [32, 128, 512])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_six_products_are_as_exact_as_plain_float32(chunk, d, noise):
    a, b = unit_rows(noise, d)
    plain = errors(a @ b.T, a, b)
    found = errors(six_products(a, b, chunk), a, b)
    assert found[0] <= 2 * plain[0]
    assert found[1] <= 2 * plain[1]


def test_longer_sums_on_the_units_would_not_be():
    a, b = unit_rows(0.1, 512)
    assert errors(six_products(a, b, 512), a, b)[0] > 2 * errors(a @ b.T, a, b)[0]
