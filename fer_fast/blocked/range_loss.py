"""Range loss: the widest pairs of each class and the nearest two class means, found by tiles of products.

Rows of a class are brought together, so that only the tiles a class crosses are visited: 2·d operations for each of
its pairs. A row's k farthest later rows are found from ‖a‖² + ‖b‖² - 2 a·b in float64, and by differences where that
leaves too few digits, which takes seven times as long; the n·k pairs found are then measured by differences, ranked
within their class, and the first k kept. Memory beyond the gradient: a few tiles a thread, n·k candidates, the class
means, and for 16-bit features the gradient once in float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..terms import ALONE, Peers, Share
from .side_by_side import each_block, rows_each
from .tiles import (
    add_rows,
    classes_of,
    gradient_dtype,
    rows_per_block,
    spans,
    take,
    taking_part,
    wide_dtype,
    work_dtype,
)

TILE = 512


def range_loss(
    x: Tensor,
    y: Tensor,
    k: int,
    alpha: float,
    beta: float,
    margin: float,
    gradient: bool,
    peers: Peers = ALONE,
    share: Share | None = None,
) -> tuple[Tensor, Tensor]:
    """L = α Σ_c K_c / (Σ_{j≤K_c} 1/D_cj) + β [M - D]₊: (loss, dx).   x (n, d), y (n,), negative for rows left out.

    D_cj is the j-th largest squared distance within class c, K_c the smaller of k and its pairs, D the smallest squared
    distance between two class means. A harmonic mean with a zero in it is 0; of equal distances the pair that comes
    first counts; a row that is not finite makes the loss NaN. Of rows that lie on several processes each finds the
    partners of as many as any other, and dx is that of its `share`.
    """
    dtype = work_dtype(x)
    x, y, _ = taking_part(x, y)
    labels, index, rows = classes_of(y)
    counts = rows.masked_fill(labels < 0, 0)  # a row that is taken out is alone in its class, which counts for none
    means = _class_means(x, index, counts, dtype)
    scanned = None if share is None else share.even(len(x))
    widest = _widest(x, index, rows, means, k, peers, scanned)
    intra, intra_slope = _harmonic_means(widest, index, len(counts), k)
    nearest = _nearest(means, counts)
    inter = (margin - nearest.squared).relu()
    loss = alpha * intra.sum() + beta * inter
    finite = torch.stack(x.aminmax()).isfinite().all()
    loss = loss.where(finite, torch.nan)
    if not gradient:
        return loss, x.new_empty(0, dtype=gradient_dtype(x))

    dx = torch.zeros(x.shape, dtype=dtype, device=x.device)
    for block in spans(len(widest.first), rows_per_block(x.shape[1])):
        first, second = widest.first[block], widest.second[block]
        pull = (take(x, first, dtype) - take(x, second, dtype)).mul_(2 * alpha * intra_slope[block, None])
        add_rows(dx, first, pull)
        add_rows(dx, second, pull.neg_())
    ends = torch.stack([nearest.first, nearest.second])
    toward = (index == ends[:, None]).to(dtype) / counts[ends, None].clamp(min=1)
    apart = (means[ends[0]] - means[ends[1]]) * (inter > 0).to(dtype).mul_(-2 * beta)
    dx = dx.addr_(toward[0] - toward[1], apart).to(gradient_dtype(x))
    return loss, dx if share is None else dx[share.own].contiguous()


def _class_means(x: Tensor, index: Tensor, counts: Tensor, dtype: torch.dtype) -> Tensor:
    """(C, d), about the first row of each class: equal rows have exactly the mean they are."""
    rows = torch.arange(len(x), device=x.device)
    first = torch.zeros_like(counts).scatter_reduce_(0, index, rows, "amin", include_self=False)
    means = take(x, first, dtype)
    offsets = torch.zeros_like(means)
    for block in spans(len(x), rows_per_block(x.shape[1])):
        add_rows(offsets, index[block], take(x, block, dtype) - means.index_select(0, index[block]))
    return means.add_(offsets.div_(counts.clamp(min=1)[:, None]))


class _Pairs(NamedTuple):
    """Pairs of rows, first < second, with the distance taken from their difference."""

    first: Tensor  # (m,), or () for a single pair
    second: Tensor
    squared: Tensor  # -inf (inf for the nearest) where there is no such pair


def _widest(
    x: Tensor, index: Tensor, counts: Tensor, means: Tensor, k: int, peers: Peers, share: Share | None
) -> _Pairs:
    """For each row its k farthest later rows of the same class, row by row, of equal distances the earlier first."""
    order = index.argsort(stable=True)
    place = index[order]

    def rows(span: slice) -> Tensor:
        return take(x, order[span], wide_dtype(x.device))

    scanned = slice(0, len(x)) if share is None else share.own
    found, partner = _farthest(rows, means, place, counts.cumsum(0), k, scanned)
    if share is not None:
        found, partner = peers.gather(share, found[scanned], partner[scanned])
    first, second = order.repeat_interleave(k), order[partner.flatten()]
    squared = torch.empty(len(first), dtype=means.dtype, device=x.device)
    for block in spans(len(first), rows_per_block(x.shape[1])):
        squared[block] = (take(x, first[block], means.dtype) - take(x, second[block], means.dtype)).square_().sum(1)
    return _Pairs(first, second, squared.masked_fill_(~found.flatten(), -torch.inf))


def _nearest(means: Tensor, counts: Tensor) -> _Pairs:
    """The two nearest class means, the first such pair."""
    middle = means.mean(0).expand(len(means) + 1, -1)
    numbers = torch.arange(1, len(means) + 1, device=means.device)
    # All classes share place 0; places that stand for no class are alone in theirs.
    place = numbers.where(counts == 0, 0)
    every = slice(0, len(means))
    wide = wide_dtype(means.device)
    found, partner = _farthest(lambda span: means[span].to(wide), middle, place, None, 1, every, sign=-1)
    partner = partner[:, 0]
    squared = torch.empty_like(means[:, 0])
    for block in spans(len(means), TILE):
        squared[block] = (means[block] - means[partner[block]]).square_().sum(1)
    squared.masked_fill_(~found[:, 0], torch.inf)
    first = squared.argmin()
    return _Pairs(first, partner[first], squared[first])


def _farthest(
    rows: Callable[[slice], Tensor],
    origins: Tensor,
    place: Tensor,
    ends: Tensor | None,
    k: int,
    scanned: slice,
    sign: int = 1,
) -> tuple[Tensor, Tensor]:
    """For each `scanned` row the k farthest (sign -1: nearest) later rows of its place: whether there is one, and
    which, (n, k).

    `rows(span)` are wide; `origins` (s, d) by place lie among them. `ends`, where rows of a place are consecutive: one
    past the last row of each.
    """
    n = len(place)
    found = torch.zeros(n, k, dtype=torch.bool, device=place.device)
    partner = torch.zeros(n, k, dtype=torch.int64, device=place.device)

    def centred(span: slice) -> Tensor:
        return rows(span) - origins[place[span]]

    def scan(block: slice) -> None:
        stop = int(ends[place[block][-1]]) if ends is not None and place.is_cpu else n
        later = [block, *spans(stop, TILE, block.stop)]
        best = None
        if place.is_cpu:
            own = centred(block)
            best, chosen = _scan(own, centred, _coarse_distances, place, block, later, k, sign)
            # Off by 2⁻⁵⁰ of the lengths. Of rows farther than that from a longer one, none can be missed.
            least = best.abs().amin(1).mul_(2.0**18)
            if not bool((own.square().sum(1) <= least).all()):
                best = None
        if best is None:
            best, chosen = _scan(rows(block), rows, _exact_distances, place, block, later, k, sign)
        found[block], partner[block] = best > -torch.inf, chosen

    size = rows_each(max(scanned.stop - scanned.start, 1), TILE, place.device)
    each_block(scan, spans(scanned.stop, size, scanned.start), place.device)
    return found, partner


def _scan(
    own: Tensor,
    rows: Callable[[slice], Tensor],
    distances: Callable[[Tensor, Tensor], Tensor],
    place: Tensor,
    block: slice,
    later: list[slice],
    k: int,
    sign: int,
) -> tuple[Tensor, Tensor]:
    """:func:`_farthest` of a block of rows among spans of later ones: their signed distances and numbers, (r, k)."""
    best = own.new_full((len(own), k), -torch.inf)
    chosen = torch.zeros_like(best, dtype=torch.int64)
    for span in later:
        scores = distances(own, own if span == block else rows(span)).mul_(sign)
        scores.masked_fill_(place[block, None] != place[span], -torch.inf)
        if span == block:
            scores.masked_fill_(torch.ones_like(scores, dtype=torch.bool).tril_(), -torch.inf)
        values, columns = [best], [chosen]
        for _ in range(min(k, scores.shape[1])):
            value, column = scores.max(1, keepdim=True)  # of equal ones the first
            scores.scatter_(1, column, -torch.inf)
            values.append(value)
            columns.append(column + span.start)
        best, rank = torch.cat(values, 1).sort(dim=1, descending=True, stable=True)
        best, chosen = best[:, :k], torch.cat(columns, 1).gather(1, rank[:, :k])
    return best, chosen


def _coarse_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i - b_j‖² for wide rows, rounded to 32 binary digits, so that equal ones come out equal."""
    squared = torch.addmm(b.square().sum(1), a, b.T, alpha=-2).add_(a.square().sum(1, keepdim=True))
    coarse = squared * (2**21 + 1 if squared.dtype == torch.float64 else 2**4 + 1)
    return coarse.sub_(coarse - squared)


def _exact_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i - b_j‖ for wide rows, by differences."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _harmonic_means(pairs: _Pairs, index: Tensor, num_classes: int, k: int) -> tuple[Tensor, Tensor]:
    """K / Σ 1/D over the widest k pairs of each class, (C,), and its derivative by every distance, (m,)."""
    squared, of_class = pairs.squared, index[pairs.first]
    order = squared.argsort(descending=True, stable=True)
    order = order[of_class[order].argsort(stable=True)]
    squared, of_class = squared[order], of_class[order]
    sizes = torch.zeros(num_classes, dtype=torch.int64, device=index.device)
    sizes.scatter_add_(0, of_class, torch.ones_like(of_class))
    starts = sizes.cumsum(0) - sizes
    rank = torch.arange(k, device=index.device)
    widest = squared[(starts[:, None] + rank).clamp_(max=len(squared) - 1)]  # (C, k)
    kept = (rank < sizes[:, None]) & ~torch.isneginf(widest)
    counted = kept.sum(1, keepdim=True)
    # In units of the class's smallest distance kept, neither 1/D nor 1/D² overflows at near duplicates.
    smallest = widest.gather(1, (counted - 1).clamp_(min=0)).where(counted > 0, 0)
    unit = smallest.where((smallest > 0) & smallest.isfinite(), 1)
    kept &= smallest != 0
    ratios = (unit / widest).where(kept, 0)
    inverse = ratios.sum(1, keepdim=True)
    means = (unit * counted / inverse).where(smallest != 0, 0)[:, 0]
    slopes = (counted * (ratios / inverse).square()).where(kept, 0)
    rank = torch.arange(len(order), device=index.device) - starts[of_class]
    by_pair = slopes[of_class, rank.clamp(max=k - 1)].where(rank < k, 0)
    return means, torch.empty_like(by_pair).scatter_(0, order, by_pair)
