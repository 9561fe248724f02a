"""Pairwise engine: losses that are a sum over pairs of rows of a function of one similarity.

    L = c Σ_{i≠j} ℓ(s_ij),  s = U Uᵀ,   dL/dU_i = 2c Σ_{j≠i} ℓ'(s_ij) u_j,

U = rows of x (n, d) to length one, or centred first as well (then s is Pearson's correlation). Three launches:
`normalise` writes U, one sweep over tiles of S gives loss and dU together (S tile, epilogue, G tile, dU += G U),
`chain_rule` takes dU back through the normalisation. No n×n buffer exists.

Floor: 4·n²·d operations; U is read once per tile of rows, through L2.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import directions
from ..aot import TYPES, aot_case, mark, products_to_compile
from ..configs import PAIR_TILES, chip, pick_tile
from ..directions import chain_rule, normalise
from ..epilogues.fd_pairwise import FDArguments, fd_pairwise
from ..epilogues.marginal import MarginalArguments, marginal
from ..launch import cdiv, dense_rows, pick_splits, processors, product
from ..pair_tiles import load_rows, share, similarities, store_rows


class Epilogue(NamedTuple):
    """A loss: (s, same class, weight_i, weight_j, arguments) → (loss, dloss/ds), symmetric in i and j."""

    function: Callable
    arguments: type
    standardise: bool
    divisor: Callable[[int, int], int]  # of the mean, from (k, n)


EPILOGUES = {
    "marginal": Epilogue(marginal, MarginalArguments, False, lambda k, n: max(n * n - n, 1)),
    "fd": Epilogue(fd_pairwise, FDArguments, True, lambda k, n: k * n * n),
}


@triton.jit(do_not_specialize=["n"])
def _sweep(
    u, y, weights, gradients, partial, n, args, d: tl.constexpr, EPILOGUE: tl.constexpr, GRADIENT: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of rows of a plane of u (k, n, d) over a share of its keys: gradients (splits, k, n, d), partial loss."""
    tile, split, plane = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    chunks = tl.cdiv(d, BLOCK_D)
    chunk = plane % chunks
    plane = plane // chunks
    u += plane.to(tl.int64) * n * d
    first_row = tile * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    own = load_rows(u, first_row, rows < n, d, columns, d)
    labels = tl.load(y + rows, mask=rows < n, other=0)
    weight = tl.load(weights + rows, mask=rows < n, other=0.0)
    losses = tl.zeros((BLOCK_M,), tl.float32)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    first, last = share(n, split, tl.num_programs(1), BLOCK_N)
    for start in tl.range(first, last, BLOCK_N, disable_licm=True):  # what is hoisted takes registers
        keys = start + tl.arange(0, BLOCK_N)
        s, key_tile = similarities(
            own, u, first_row, rows < n, d, u, start, keys < n, d, columns, d, BLOCK_K, PRECISION
        )
        same = labels[:, None] == tl.load(y + keys, mask=keys < n, other=0)[None, :]
        key_weight = tl.load(weights + keys, mask=keys < n, other=0.0)
        loss, slope = EPILOGUE(s, same, weight[:, None], key_weight[None, :], args)
        pair = (rows[:, None] != keys[None, :]) & (rows < n)[:, None] & (keys < n)[None, :]
        losses += tl.sum(tl.where(pair, loss, 0.0), 1)
        if GRADIENT:
            g = tl.where(pair, slope, 0.0).to(own.dtype)
            total = tl.dot(g, key_tile, total, input_precision=PRECISION)
    if GRADIENT:
        planes = tl.num_programs(2) // chunks
        gradients += (split.to(tl.int64) * planes + plane) * n * d
        store_rows(gradients, first_row, d, columns, d, n, total)
    if chunk == 0:
        program = (plane * tl.num_programs(1) + split) * tl.num_programs(0) + tile
        tl.store(partial + program, tl.sum(losses))


_empty = torch.empty


def pairwise(
    x: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    epilogue: str,
    params: list[float],
    mean: bool,
    gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Loss () in float32 and dx of `marginal` (params θ, ξ; x (n, d)) or `fd` (no params; x (k, n, d)).

    y (n,) is any int64 for marginal; FD takes w(y) from class_difficulty (C,), and a label outside it makes the loss
    NaN. Without `gradient` dx is (0,).
    """
    rule = EPILOGUES[epilogue]
    x, y = dense_rows(x), y.contiguous()
    n, d = x.shape[-2:]
    k = x.numel() // (n * d)
    u, weights = normalise(x, y, class_difficulty, rule.standardise)
    kind, precision = product(x.dtype)
    tile = pick_tile(PAIR_TILES, chip(x.device), kind, d)
    tiles, key_tiles = cdiv(n, tile.block_m), cdiv(n, tile.block_n)
    splits = pick_splits(tiles * k, key_tiles, processors(x.device))
    gradients = _empty((splits, *x.shape) if gradient else (0,), dtype=torch.float32, device=x.device)
    partial = _empty((k, splits, tiles), dtype=torch.float32, device=x.device)
    chunks = cdiv(d, tile.block_d) if gradient else 1
    _sweep[tiles, splits, k * chunks](
        u, y, weights, gradients, partial, n, rule.arguments(*params), d=d, EPILOGUE=rule.function, GRADIENT=gradient,
        PRECISION=precision, **tile.constexprs, **tile.options,
    )  # fmt: skip
    scale = 1 / rule.divisor(k, n) if mean else 1.0
    return chain_rule(x, gradients if gradient else None, partial, rule.standardise, scale, 2 * scale)


def aot_cases(family: str) -> Iterator[tuple]:
    """The sweep with every epilogue at every setting of a chip family, and the rows' kernels, for the audit."""
    yield from directions.aot_cases()
    types = {"n": "i32", "y": "*i64"} | dict.fromkeys(("weights", "gradients", "partial"), "*fp32")
    for name, tile, dtype, precision, d in products_to_compile(PAIR_TILES, family):
        flags = {"GRADIENT": True, "PRECISION": precision, "d": d, **tile.constexprs}
        for epilogue, rule in EPILOGUES.items():
            arguments = rule.arguments(*("fp32" for _ in rule.arguments._fields))
            signature = types | {"u": f"*{TYPES[dtype]}", "args": arguments}
            flags["EPILOGUE"] = rule.function
            case = mark(f"sweep-{epilogue}-{name}", dtype == torch.bfloat16 and d == 256)
            yield aot_case(case, _sweep, signature, flags, tile.options)
