"""Classifiers of any number of classes, launched."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fer_fast.terms import Classifier

from ..directions.launch import blocks_of, normalise
from ..directions.settings import DIRECTION_ROWS
from ..host.launch import cdiv, dense_rows, gradient_dtype
from .gradients import row_gradients
from .heads import head_of, scales
from .products import product
from .settings import CHUNK_ROWS, ROW_ALIGNMENT, chunk_bytes, row_settings
from .softmax import softmax_rows
from .targets import OWN, SHARE, WEIGHT, target_rows

_empty = torch.empty


class Shard(NamedTuple):
    """Which of all classes a weight has, of several that processes share, the same chunks on each; or all of them."""

    class_offset: int = 0
    num_classes: int | None = None  # of all
    chunk_rows: int | None = None


ALL_CLASSES = Shard()


class Sweep:
    """One call over chunks of rows, of x (n, d), y (n,) and a classifier: `visit` each of `chunks`, then ask for the
    `result`, as `whole` does.

    The mean divides by n, with class weights by Σ W_y, with float32 sample_weights w (n,) by Σ w W_y; "none" gives the
    losses of the rows (n,). A label outside [0, C) makes the loss NaN and goes to `status` (1,).

    Of a shard, weight and bias are of the classes from `class_offset` on, labels and class weights of all. Then,
    instead of a visit, `survey` a chunk, combine what it returns over the shards, and `finish` with that. The loss
    comes out whole on every shard, dx as the shard's part of a sum. Shards take no label_smoothing and no setting.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        classifier: Classifier,
        sample_weights: Tensor | None,
        reduction: str,
        gradient: bool,
        status: Tensor | None = None,
        shard: Shard = ALL_CLASSES,
    ):
        _, weight, bias, class_weights, _, setting, self.smoothing = classifier
        if torch.float64 in (x.dtype, weight.dtype):
            raise NotImplementedError("features or class weights in float64")
        if shard.num_classes is not None and (self.smoothing or setting is not None):
            raise NotImplementedError("label smoothing or a learnt scale of a shard")
        self.head, self.gradient = head_of(classifier.name, classifier.params, setting), gradient
        self.setting, self.by_row = setting, reduction == "none"
        if sample_weights is not None:  # a row that weighs nothing may hold anything
            x = x.masked_fill((sample_weights == 0)[:, None], 0)
        self.x, self.weight, self.bias = dense_rows(x), weight.contiguous(), bias
        (self.n, self.d), (self.num_classes, _), device = x.shape, weight.shape, x.device
        self.blocks = blocks_of(self.d)

        self.features = _empty(x.shape, dtype=x.dtype, device=device) if self.head.unit_x else self.x
        if self.head.unit_w:
            self.table = normalise(self.weight, None, None, standardise=False, dtype=x.dtype)[0]
        else:
            self.table = self.weight.to(x.dtype)
        stride = cdiv(self.num_classes, ROW_ALIGNMENT) * ROW_ALIGNMENT
        self.shift = None
        if bias is not None:
            self.shift = torch.nn.functional.pad(bias.float(), (0, stride - self.num_classes))
        size = shard.chunk_rows or _rows_per_chunk(self.n, stride * x.element_size(), chunk_bytes(device))
        self.chunks = [slice(first, min(first + size, self.n)) for first in range(0, self.n, size)]
        self.logits = _empty((min(size, self.n), stride), dtype=x.dtype, device=device)

        wide = {"dtype": torch.float32, "device": device}
        self.losses = _empty((self.n,), **wide)
        self.targets = _empty((self.n,), dtype=torch.int32, device=device)
        self.facts = _empty((6 if self.smoothing else 4, self.n), **wide)
        self.class_weights = None if class_weights is None else class_weights.contiguous()
        self._read_targets(y.contiguous(), shard, status)
        self.factor = self._weigh(reduction == "mean", sample_weights)
        self.along_logits = None
        if gradient:
            if setting is not None and scales(self.head.a):
                self.along_logits = _empty((self.n,), **wide)
            self.coefficients = _empty((3, self.n), **wide) if self.head.apart else None
            self.dx = _empty(x.shape, dtype=gradient_dtype(x), device=device)
            self.dweight = _empty(weight.shape, **wide)
            self.dbias = torch.zeros((self.num_classes,), **wide) if bias is not None else None

    def _read_targets(self, y: Tensor, shard: Shard, status: Tensor | None) -> None:
        target_rows[cdiv(self.n, self.blocks["BLOCK"]),](
            self.x, y, self.weight, self.class_weights, status, self.features, self.targets, self.facts,
            self.n, self.num_classes, shard.class_offset, shard.num_classes or self.num_classes,
            self.d, self.x.stride(0),
            UNIT_X=self.head.unit_x, UNIT_W=self.head.unit_w, LENGTHS=self.head.lengths,
            **self.blocks, **DIRECTION_ROWS.options,
        )  # fmt: skip

    def _weigh(self, mean: bool, sample_weights: Tensor | None) -> Tensor | None:
        """Turn W_y of each row into what multiplies its loss and G; the factor that is then still missing, if any.

        With smoothed labels that is the sum of its targets, beside which are its own class's and what W of every class
        is multiplied by.

        The numbers of G in float16 fill its range whatever n, C and W are: the row that weighs most weighs a power of
        two, with which G of the steepest logit stays below what float16 holds.
        """
        weights, total = self.facts[WEIGHT.value], 1
        if sample_weights is not None:
            weights *= sample_weights
        if mean:
            weighted = sample_weights is not None or self.class_weights is not None
            total = weights.sum() if weighted else self.n
            total = total.where(total != 0, 1) if weighted else total
            weights /= total
        if self.smoothing:
            share = self.smoothing / self.num_classes / total
            self.facts[SHARE.value] = share if sample_weights is None else share * sample_weights
            self.facts[OWN.value] = (1 - self.smoothing) * weights
            every = self.num_classes if self.class_weights is None else self.class_weights.float().sum()
            weights.copy_(self.facts[OWN.value] + self.facts[SHARE.value] * every)
        if not self.gradient or self.x.dtype != torch.float16:
            return None
        steepest = self.head.steepest
        if isinstance(steepest, Tensor):
            room = torch.exp2(15 - steepest.log2().ceil())
        else:
            room = 2.0 ** (15 - math.ceil(math.log2(steepest)))
        most = weights.abs().max() / room
        factor = most.where(most != 0, 1)
        self.facts[WEIGHT.value :] /= factor
        return factor

    def whole(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The result of all rows, whose classes are all here."""
        for rows in self.chunks:
            self.visit(rows)
        return self.result()

    def visit(self, rows: slice) -> None:
        """Loss and gradients of a chunk of rows, all of whose classes are here."""
        self._multiply(rows)
        self._softmax(rows, None, find=True, finish=True)
        self._backward(rows)

    def survey(self, rows: slice) -> Tensor:
        """Statistics (3, r) of a chunk: the largest logit of other classes than the target, the sum of exponentials of
        their distance from it, and the target's logit, 0 where that is not here. Combined over shards, they are the
        largest, the sum of sums · exp(largest - the largest of all), and the sum."""
        self._multiply(rows)
        statistics = _empty((3, rows.stop - rows.start), dtype=torch.float32, device=self.x.device)
        self._softmax(rows, statistics, find=True, finish=False)
        return statistics

    def finish(self, rows: slice, statistics: Tensor) -> None:
        """Loss and gradients of the chunk surveyed last, from the statistics of all classes."""
        self._softmax(rows, statistics, find=False, finish=True)
        self._backward(rows)

    def result(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Loss () in float32, dx (n, d), dweight (C, d), dbias (C,) and dsetting (); gradients are (0,) where there are
        none."""
        loss = self.losses.double() if self.smoothing else self.losses.double() * self.facts[WEIGHT.value]
        loss = loss if self.by_row else loss.sum()
        if self.factor is not None:
            loss *= self.factor
        loss = loss.float()
        of_setting = gradient_dtype(self.x if self.setting is None else self.setting)
        of_bias = gradient_dtype(self.x if self.bias is None else self.bias)
        if not self.gradient:
            absent = (gradient_dtype(self.x), gradient_dtype(self.weight), of_bias, of_setting)
            return loss, *(_empty((0,), dtype=dtype, device=loss.device) for dtype in absent)
        dx, dweight, dbias = self.dx, self.dweight, self.dbias
        if self.factor is not None:
            for wide in (dx, dweight, dbias):
                if wide is not None:
                    wide *= self.factor
        if self.head.unit_w:
            self._row_gradients(dweight, self.weight, slice(0, self.num_classes), dweight)
        dbias = _empty((0,), dtype=of_bias, device=dx.device) if dbias is None else dbias.to(of_bias)
        if self.along_logits is None:
            dsetting = torch.zeros(() if self.setting is not None else (0,), dtype=of_setting, device=dx.device)
        else:
            along = self.along_logits.double().sum() * (1 if self.factor is None else self.factor)
            dsetting = (along / self.setting).to(of_setting)
        return loss, dx, dweight.to(gradient_dtype(self.weight)), dbias, dsetting

    def _multiply(self, rows: slice) -> None:
        product(self.features[rows], self.table.T, self._chunk(rows))

    def _chunk(self, rows: slice) -> Tensor:
        return self.logits[: rows.stop - rows.start, : self.num_classes]

    def _softmax(self, rows: slice, statistics: Tensor | None, find: bool, finish: bool) -> None:
        constexprs, options = row_settings(self.num_classes, self.x.element_size())
        softmax_rows[rows.stop - rows.start,](
            self.logits, self.shift, self.targets, self.facts, statistics, self.losses,
            self.coefficients if self.gradient else None, self.class_weights if self.smoothing else None,
            self.along_logits, self.head.a,
            rows.start, self.n, self.num_classes, self.logits.stride(0),
            LOGITS=self.head.logits, CHAIN=self.head.chain, FIND=find, FINISH=finish, GRADIENT=self.gradient,
            APART=self.head.apart, SMOOTH=self.smoothing > 0, **constexprs, **options,
        )  # fmt: skip

    def _backward(self, rows: slice) -> None:
        """From G of a chunk: its rows' gradients; the table's are added up."""
        if not self.gradient:
            return
        g, dx, again = self._chunk(rows), self.dx[rows], rows.start > 0
        product(g.T, self.features[rows], self.dweight, add=again)
        if self.dbias is not None:
            self.dbias += g.sum(0, dtype=torch.float32)
        if not self.head.unit_x and not self.head.apart:
            product(g, self.table, dx)
            return
        products = _empty(dx.shape, dtype=torch.float32, device=dx.device)
        product(g, self.table, products)
        by_table = _empty(dx.shape, dtype=torch.float32, device=dx.device) if self.head.apart else None
        self._row_gradients(products, self.x, rows, self.dx, by_table)
        if by_table is not None:
            index = self.targets[rows].clamp(0, self.num_classes - 1).long()
            self.dweight.index_put_((index,), by_table, accumulate=True)

    def _row_gradients(
        self, products: Tensor, x: Tensor, rows: slice, out: Tensor, by_table: Tensor | None = None
    ) -> None:
        count = rows.stop - rows.start
        row_gradients[cdiv(count, self.blocks["BLOCK"]),](
            products, x, self.weight, self.targets, self.coefficients, out, by_table,
            rows.start, count, self.n, self.d, x.stride(0),
            APART=by_table is not None, UNIT_W=self.head.unit_w, **self.blocks, **DIRECTION_ROWS.options,
        )  # fmt: skip


def _rows_per_chunk(n: int, row_bytes: int, most_bytes: int) -> int:
    """Rows of each of as few chunks as keep below `most_bytes`, all but the last of one size."""
    most = max(1, most_bytes // (row_bytes * CHUNK_ROWS)) * CHUNK_ROWS
    return cdiv(cdiv(n, cdiv(n, most)), CHUNK_ROWS) * CHUNK_ROWS
