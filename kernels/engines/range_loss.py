"""Range loss (Zhang et al. 2017): the k widest pairs of each class, the two nearest class means.

    L = α Σ_c K_c / (Σ_{j≤K_c} 1/D_cj) + β [M - D]₊

Rows are sorted by label on the device (labels are any int64, their number unknown to the host), so that a class is one
run of rows and the classes are numbered 0, 1, …; tables of classes have n places, of which the host cannot know how
many are used. `_extremes` finds, for each row i, its k extreme partners j in (i, end_i): the widest within the class,
or for class means (k = 1) the nearest. Every distance is a sum of squared differences, so duplicates are at exactly 0,
and the k that count are not mistaken for their neighbours.

Floor: Σ_c n_c²·d + C²·d differences, each half of the square of pairs; x read a few times; no n×n buffer.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..aot import TYPES, aot_case, mark
from ..configs import RANGE_PAIRS, chip
from ..configs import RANGE_ROWS as ROWS
from ..launch import cdiv, columns_first, gradient_dtype
from ..pair_tiles import compensated, load_rows, row_pointers, squared_distances, store_rows


@triton.jit
def _insert(best, partners, slots, value, partner):
    """Put candidates (R,) into lists best (R, K), over their smallest value, if larger: of equals the earlier stays."""
    smallest = tl.min(best, 1)
    weakest = tl.min(tl.where(best == smallest[:, None], -slots[None, :], 1), 1)
    here = (slots[None, :] == -weakest[:, None]) & (value > smallest)[:, None]
    return tl.where(here, value[:, None], best), tl.where(here, partner[:, None], partners)


@triton.jit
def _any_larger(candidates, best):
    """Whether a candidate (R, N) belongs into its row's list (R, K)."""
    return tl.max((candidates > tl.min(best, 1)[:, None]).to(tl.int32)) > 0


@triton.jit(do_not_specialize=["n"])
def _extremes(
    table, ends, values, partners, n, d, LARGEST: tl.constexpr, K: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Per row i the K extreme distances to rows j in (i, end_i), and those j: (n, K), missing ones below any distance.

    Keeps the largest of ±D. NaN ranks first, so that it is chosen and reaches the loss.
    """
    first_row = tl.program_id(0) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    end = tl.load(ends + rows, mask=rows < n, other=0).to(tl.int32)
    slots = tl.arange(0, SLOTS)
    # Slots past K, up to the power of two a tensor needs, can never be the smallest.
    best = tl.where(slots[None, :] < K, tl.full((BLOCK_M, SLOTS), float("-inf"), tl.float32), float("inf"))
    chosen = tl.full((BLOCK_M, SLOTS), -1, tl.int32)
    for start in range(first_row, tl.max(end), BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        distance = squared_distances(table, rows, table, keys, d, CHUNK)
        if not LARGEST:
            distance = -distance
        distance = tl.where(distance != distance, float("inf"), distance)
        pair = (keys[None, :] > rows[:, None]) & (keys[None, :] < end[:, None])
        candidates = tl.where(pair, distance, float("-inf"))
        while _any_larger(candidates, best):
            value = tl.max(candidates, 1)
            partner = tl.min(tl.where(candidates == value[:, None], keys[None, :], n), 1)
            best, chosen = _insert(best, chosen, slots, value, partner)
            candidates = tl.where(keys[None, :] == partner[:, None], float("-inf"), candidates)
    store_rows(values, first_row, K, slots, K, n, best)
    store_rows(partners, first_row, K, slots, K, n, chosen)


@triton.jit
def _distance(a, b, width, BLOCK: tl.constexpr):
    """‖a - b‖² of two rows, by differences."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        left = tl.load(a + columns, mask=columns < width, other=0.0).to(tl.float32)
        right = tl.load(b + columns, mask=columns < width, other=0.0).to(tl.float32)
        total += (left - right) * (left - right)
    return tl.sum(total)


@triton.jit(do_not_specialize=["n"])
def _class_terms(
    x, starts, values, partners, means, pairs, slopes, losses, n, d,
    K: tl.constexpr, SLOTS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One class: its mean (n, d), K widest pairs (n, 2, K), their harmonic mean (n,) and the slopes there (n, K)."""
    number = tl.program_id(0)
    first = tl.load(starts + number).to(tl.int32)
    last = tl.load(starts + number + 1).to(tl.int32)
    loss = 0.0
    if last > first:
        loss = _class_mean(x, means + number.to(tl.int64) * d, first, last, d, BLOCK, BLOCK_D)
    slots = tl.arange(0, SLOTS)
    distances = tl.full((SLOTS,), float("inf"), tl.float32)
    found = 0
    value, code = tl.full((), float("inf"), tl.float32), tl.full((), -1, tl.int64)
    for slot in tl.static_range(K):
        value, code = _next_widest(values, partners, first, last, n, value, code, K, SLOTS, BLOCK)
        if value > float("-inf"):
            i, j = code // n, code % n
            distances = tl.where(slots == slot, _distance(x + i * d, x + j * d, d, BLOCK_D), distances)
            tl.store(pairs + (2 * number) * K + slot, i.to(tl.int32))
            tl.store(pairs + (2 * number + 1) * K + slot, j.to(tl.int32))
            found += 1
    # In units of the smallest distance: neither 1/D nor the 1/D² of the slope overflows at near duplicates.
    counted = slots < found
    smallest = tl.min(distances)
    unit = tl.where((smallest > 0) & (smallest < float("inf")), smallest, 1.0)
    inverse = tl.where(counted, unit / tl.where(distances == 0, 1.0, distances), 0.0)
    total = tl.sum(inverse)
    used = (found > 0) & (smallest != 0)
    loss += tl.where(used, unit * found / tl.where(found > 0, total, 1.0), 0.0)
    share_of_total = tl.where(used, inverse / tl.where(found > 0, total, 1.0), 0.0)
    tl.store(slopes + number * K + slots, found * share_of_total * share_of_total, mask=slots < K)
    tl.store(losses + number, loss)


@triton.jit
def _class_mean(x, mean, first, last, d, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """Store the mean of the rows [first, last); 0 comes back, or NaN if one of them is not finite."""
    unbounded = tl.zeros((BLOCK_D,), tl.float32)
    for start in range(0, d, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        total = tl.zeros((BLOCK_D,), tl.float32)
        error = tl.zeros((BLOCK_D,), tl.float32)
        for row in range(first, last, BLOCK):
            valid = row + tl.arange(0, BLOCK) < last
            tile = load_rows(x, row, valid, d, columns, d).to(tl.float32)
            total, error = compensated(total, error, tl.sum(tile, 0))
            unbounded += tl.sum(tile * 0.0, 0)
        tl.store(mean + columns, total / (last - first), mask=columns < d)
    return tl.sum(unbounded)


@triton.jit
def _next_widest(
    values, partners, first, last, n, value, code, K: tl.constexpr, SLOTS: tl.constexpr, BLOCK: tl.constexpr
):
    """The candidate of rows [first, last) that ranks next after (value, code): by distance, then by pair i·n + j."""
    slots = tl.arange(0, SLOTS)
    best = tl.full((), float("-inf"), tl.float32)
    best_code = tl.full((), -1, tl.int64)
    for start in range(first, last, BLOCK):
        rows = start + tl.arange(0, BLOCK)
        inside = (rows < last)[:, None] & (slots < K)[None, :]
        v = tl.load(row_pointers(values, start, K, slots, BLOCK), mask=inside, other=float("-inf"))
        partner = tl.load(row_pointers(partners, start, K, slots, BLOCK), mask=inside, other=0)
        codes = rows.to(tl.int64)[:, None] * n + partner
        v = tl.where((v < value) | ((v == value) & (codes > code)), v, float("-inf"))
        tile_best = tl.max(v)
        if tile_best > best:  # rows ascend, so an equal one comes later
            best = tile_best
            best_code = tl.min(tl.where(v == tile_best, codes, 9223372036854775807))
    return best, best_code


@triton.jit(do_not_specialize=["n"])
def _total(
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
    value, code = _next_widest(values, partners, 0, count, n, value, code, 1, 1, BLOCK)
    total = alpha * tl.sum(intra)
    slope = 0.0
    if value > float("-inf"):
        a, b = code // n, code % n
        gap = margin - _distance(means + a * d, means + b * d, d, BLOCK_D)
        total += tl.where(gap <= 0, 0.0, beta * gap)
        slope = tl.where(gap <= 0, 0.0, beta)
        tl.store(nearest, a)
        tl.store(nearest + 1, b)
    tl.store(hinge_slope, slope)
    tl.store(loss, total)


@triton.jit(do_not_specialize=["n"])
def _gradient(
    x, order, index, starts, pairs, slopes, means, nearest, hinge_slope, dx, n, d, alpha,
    K: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dx (n, d): of the class's chosen pairs a row is in, and of its class mean if that is one of the nearest two."""
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    valid = rows < n
    number = tl.load(index + rows, mask=valid, other=0)
    own = load_rows(x, first, valid, d, columns, d).to(tl.float32)
    gradient = tl.zeros((BLOCK, BLOCK_D), tl.float32)
    for slot in tl.static_range(K):
        slope = tl.load(slopes + number * K + slot, mask=valid, other=0.0)
        there = valid & (slope != 0)
        i = tl.load(pairs + 2 * number * K + slot, mask=there, other=-1)
        j = tl.load(pairs + (2 * number + 1) * K + slot, mask=there, other=-1)
        inside = ((i == rows) | (j == rows))[:, None] & (columns < d)[None, :]
        other = tl.where(i == rows, j, i).to(tl.int64)[:, None] * d + columns[None, :]
        difference = own - tl.load(x + other, mask=inside, other=0.0).to(tl.float32)
        gradient += tl.where(inside, (2 * alpha * slope)[:, None] * difference, 0.0)
    slope = tl.load(hinge_slope)
    if slope != 0:
        a, b = tl.load(nearest), tl.load(nearest + 1)
        apart = tl.load(means + a * d + columns, mask=columns < d, other=0.0)
        apart -= tl.load(means + b * d + columns, mask=columns < d, other=0.0)
        size = tl.load(starts + number + 1, mask=valid, other=1) - tl.load(starts + number, mask=valid, other=0)
        sign = tl.where(number == a, -1.0, tl.where(number == b, 1.0, 0.0))
        gradient += (2 * slope * sign / size.to(tl.float32))[:, None] * apart[None, :]
    output = tl.load(order + rows, mask=valid, other=0)[:, None] * d + columns[None, :]
    tl.store(dx + output, gradient.to(dx.dtype.element_ty), mask=valid[:, None] & (columns < d)[None, :])


_empty = torch.empty


class _Classes(NamedTuple):
    """A batch sorted by label. Tables have a place for each of the at most n classes."""

    order: Tensor  # (n,) rows of the batch, class by class, in their old order within a class
    index: Tensor  # (n,) number of the class of each sorted row
    starts: Tensor  # (n + 1,) first sorted row of each class; n past the last class
    count: Tensor  # (1,) classes present

    @classmethod
    def of(cls, y: Tensor) -> "_Classes":
        labels, order = y.sort(stable=True)
        index = torch.zeros_like(labels)
        index[1:] = (labels[1:] != labels[:-1]).cumsum(0)
        starts = torch.searchsorted(index, torch.arange(len(y) + 1, device=y.device))
        return cls(order, index, starts, index[-1:] + 1)


def _find_extremes(rows: Tensor, ends: Tensor, k: int, largest: bool) -> tuple[Tensor, Tensor]:
    n, d = rows.shape
    tile = RANGE_PAIRS[chip(rows.device)]
    values = _empty((n, k), dtype=torch.float32, device=rows.device)
    partners = _empty((n, k), dtype=torch.int32, device=rows.device)
    _extremes[cdiv(n, tile.block_m),](
        columns_first(rows, tile.block_k, tile.block_n), ends, values, partners, n, d, LARGEST=largest, K=k,
        SLOTS=triton.next_power_of_2(k), BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, CHUNK=tile.block_k, **tile.options,
    )  # fmt: skip
    return values, partners


def range_loss(
    x: Tensor, y: Tensor, k: int, alpha: float, beta: float, margin: float, gradient: bool
) -> tuple[Tensor, Tensor]:
    """Loss () in float32 and dx (n, d) of x (n, d), y (n,) any int64; without `gradient` dx is (0,).

    A class of one sample has no pair; a distance of 0 makes its class's harmonic mean, and its gradient, 0; one class
    has no nearest means. A row that is not finite makes the loss NaN.
    """
    (n, d), device = x.shape, x.device
    classes = _Classes.of(y)
    rows = x.index_select(0, classes.order)
    values, partners = _find_extremes(rows, classes.starts[classes.index + 1], k, largest=True)
    means = _empty((n, d), dtype=torch.float32, device=device)
    pairs = _empty((n, 2, k), dtype=torch.int32, device=device)
    slopes = _empty((n, k), dtype=torch.float32, device=device)
    losses = _empty((n,), dtype=torch.float32, device=device)
    blocks = {"BLOCK": ROWS.block_m, "BLOCK_D": ROWS.block_d, **ROWS.options}
    _class_terms[n,](
        rows, classes.starts, values, partners, means, pairs, slopes, losses, n, d,
        K=k, SLOTS=triton.next_power_of_2(k), **blocks,
    )  # fmt: skip
    places = torch.arange(n, device=device)
    class_ends = torch.where(places < classes.count, classes.count, 0)
    values, partners = _find_extremes(means, class_ends, 1, largest=False)
    nearest = _empty((2,), dtype=torch.int64, device=device)
    hinge_slope, loss = (_empty((), dtype=torch.float32, device=device) for _ in range(2))
    _total[1,](
        means, values, partners, losses, classes.count, nearest, hinge_slope, loss, n, d, alpha, beta, margin, **blocks
    )
    if not gradient:
        return loss, _empty((0,), dtype=gradient_dtype(x), device=device)
    dx = _empty(x.shape, dtype=gradient_dtype(x), device=device)
    _gradient[cdiv(n, ROWS.block_m), cdiv(d, ROWS.block_d)](
        rows, classes.order, classes.index, classes.starts, pairs, slopes, means, nearest, hinge_slope, dx, n, d, alpha,
        K=k, **blocks,
    )  # fmt: skip
    return loss, dx


def aot_cases(family: str) -> Iterator[tuple]:
    """Every kernel for k = 2 and k = 8 and every dtype, for the audit."""
    types = {"n": "i32", "d": "i32"} | dict.fromkeys(("alpha", "beta", "margin"), "fp32")
    types |= dict.fromkeys(("table", "values", "means", "slopes", "losses", "hinge_slope", "loss"), "*fp32")
    types |= dict.fromkeys(("partners", "pairs"), "*i32")
    types |= dict.fromkeys(("ends", "starts", "order", "index", "classes", "nearest"), "*i64")
    tile, flat = RANGE_PAIRS[family], {"BLOCK": ROWS.block_m, "BLOCK_D": ROWS.block_d}
    sums = tile.constexprs | {"CHUNK": tile.block_k}
    nearest = {"LARGEST": False, "K": 1, "SLOTS": 1}
    yield aot_case(mark("nearest-means", True), _extremes, types, sums | nearest, tile.options)
    yield aot_case(mark("total", True), _total, types, flat, ROWS.options)
    for k in (2, 8):
        lists = {"K": k, "SLOTS": k}
        widest = sums | lists | {"LARGEST": True}
        yield aot_case(mark(f"widest-pairs-{k}", True), _extremes, types, widest, tile.options)
        for of in TYPES.values():
            rows = types | {"x": f"*{of}", "dx": f"*{of}"}
            common = of == "bf16" and k == 2
            yield aot_case(mark(f"class-terms-{of}-{k}", common), _class_terms, rows, flat | lists, ROWS.options)
            yield aot_case(mark(f"gradient-{of}-{k}", common), _gradient, rows, flat | lists, ROWS.options)
