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

from .. import directions, pair_rows
from ..aot import TYPES, aot_case, mark, products_to_compile
from ..configs import PAIR_TILES, chip, pick_tile
from ..directions import chain_rule, normalise
from ..epilogues.fd_pairwise import FDArguments, fd_pairwise
from ..epilogues.marginal import MarginalArguments, marginal
from ..launch import cdiv, dense_rows, pick_splits, processors, product_kind
from ..pair_rows import survey
from ..pair_tiles import load_rows, similarities, store_rows, tile_range, tile_start


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


@triton.jit
def _visit(
    totals, u, labels, weights, first_row, columns, part, parts, plain, n, args, d: tl.constexpr,
    EPILOGUE: tl.constexpr, GRADIENT: tl.constexpr, PRECISION: tl.constexpr, INTERIOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """`totals`, each row's loss (R,) and dU (R, D), with the keys of a share of the tiles added, see `tile_range`."""
    losses, total = totals
    rows = first_row + tl.arange(0, BLOCK_M)
    first, last = tile_range(n, first_row, part, parts, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
    if first < last:
        tl.assume(
            first < last
        )  # else ptxas finds a path on which the products' sums are not theirs, and waits for each
        own = load_rows(u, first_row, rows < n, d, columns, d)
        label = tl.load(labels + rows, mask=rows < n, other=0)
        weight = tl.load(weights + rows, mask=rows < n, other=0.0)
        for tile in tl.range(first, last, disable_licm=True):  # what is hoisted takes registers
            start = tile_start(tile, n, first_row, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
            keys = start + tl.arange(0, BLOCK_N)
            inside = None if INTERIOR else keys < n
            s, key_tile = similarities(
                own, u, first_row, n, d, u, start, inside, d, columns, d, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K, PRECISION
            )  # fmt: skip
            same = label[:, None] == tl.load(labels + keys, mask=inside)[None, :]
            key_weight = tl.load(weights + keys, mask=inside)
            loss, slope = EPILOGUE(s, same, weight[:, None], key_weight[None, :], args)
            if not INTERIOR:
                pair = (rows[:, None] != keys[None, :]) & inside[None, :]
                loss, slope = tl.where(pair, loss, 0.0), tl.where(pair, slope, 0.0)
            losses += tl.sum(loss, 1)
            if GRADIENT:
                total = tl.dot(slope.to(own.dtype), key_tile, total, input_precision=PRECISION)
    return losses, total


@triton.jit(do_not_specialize=["n"])
def _sweep(
    u, y, labels, long_label, weights, gradients, partial, n, args, d: tl.constexpr, EPILOGUE: tl.constexpr,
    GRADIENT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of rows of a plane of u (k, n, d) over a share of its keys: gradients (splits, k, n, d), partial loss.

    `labels` are y in 32 bits; `long_label` () is above 0 if they do not tell y apart: then all tiles take y itself.
    None: y has 32 bits.
    """
    tile, split, plane = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    splits = tl.num_programs(1)
    chunks = tl.cdiv(d, BLOCK_D)
    chunk = plane % chunks
    plane = plane // chunks
    u += plane.to(tl.int64) * n * d
    first_row = tile * BLOCK_M
    columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    plain = True if long_label is None else tl.load(long_label) == 0
    totals = tl.zeros((BLOCK_M,), tl.float32), tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for careful in tl.static_range(2):
        totals = _visit(
            totals, u, y if careful else labels, weights, first_row, columns, split, splits, plain, n, args, d,
            EPILOGUE, GRADIENT, PRECISION, not careful, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K,
        )  # fmt: skip
    losses, total = totals
    if GRADIENT:
        planes = tl.num_programs(2) // chunks
        gradients += (split.to(tl.int64) * planes + plane) * n * d
        store_rows(gradients, first_row, d, columns, d, n, total)
    if chunk == 0:
        program = (plane * splits + split) * tl.num_programs(0) + tile
        inside = first_row + tl.arange(0, BLOCK_M) < n
        tl.store(partial + program, tl.sum(tl.where(inside, losses, 0.0)))


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
    labels, long_label = (y, None) if y.dtype == torch.int32 else survey(None, y)[::2]
    tile = pick_tile(PAIR_TILES, chip(x.device), product_kind(x.dtype), d)
    tiles, key_tiles = cdiv(n, tile.block_m), cdiv(n, tile.block_n)
    splits = pick_splits(tiles * k, key_tiles, processors(x.device))
    gradients = _empty((splits, *x.shape) if gradient else (0,), dtype=torch.float32, device=x.device)
    partial = _empty((k, splits, tiles), dtype=torch.float32, device=x.device)
    chunks = cdiv(d, tile.block_d) if gradient else 1
    _sweep[tiles, splits, k * chunks](
        u, y, labels, long_label, weights, gradients, partial, n, rule.arguments(*params), d=d,
        EPILOGUE=rule.function, GRADIENT=gradient, **tile.constexprs, **tile.options,
    )  # fmt: skip
    scale = 1 / rule.divisor(k, n) if mean else 1.0
    return chain_rule(x, gradients if gradient else None, partial, rule.standardise, scale, 2 * scale)


def aot_cases(family: str) -> Iterator[tuple]:
    """The sweep with every epilogue at every setting of a chip family, and the rows' kernels, for the audit."""
    yield from directions.aot_cases()
    yield from pair_rows.aot_cases()
    types = {"n": "i32", "y": "*i64", "labels": "*i32"}
    types |= dict.fromkeys(("long_label", "weights", "gradients", "partial"), "*fp32")
    for name, tile, dtype, d in products_to_compile(PAIR_TILES, family):
        flags = {"GRADIENT": True, "d": d, **tile.constexprs}
        for epilogue, rule in EPILOGUES.items():
            arguments = rule.arguments(*("fp32" for _ in rule.arguments._fields))
            signature = types | {"u": f"*{TYPES[dtype]}", "args": arguments}
            flags["EPILOGUE"] = rule.function
            case = mark(f"sweep-{epilogue}-{name}", dtype == torch.bfloat16 and d == 256)
            yield aot_case(case, _sweep, signature, flags, tile.options)
