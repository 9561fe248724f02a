"""pytorch-metric-learning's losses on the engines of this library: `from fer_fast.compat.pml import SupConLoss`.

Constructors, defaults, normalisation, call, `W` and `state_dict` are the package's (2.9); values and gradients agree to
rounding. What only it has (miners, `indices_tuple`, other distances and reducers, regularizers, statistics) raises
`ValueError` by name. Where the two differ, on purpose:

- a row that is NaN makes the loss NaN; there it may vanish from the mean;
- NT-Xent does not stop at -log of the smallest normal number (87 in float32, 9.7 in float16), nor its gradient;
- a batch without rows is refused;
- half-precision embeddings give a float32 loss, and leave `W` in its own dtype;
- in `CrossBatchMemory` a batch of one row does not meet its own copy, a batch of which no row enters does not fill the
  queue, and the queue's place is part of `state_dict`.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from .. import checks, functional, ops, reference
from ..dispatch import resolve
from ..losses.base import Loss, WholeState
from ..reference import pair_losses
from ..reference.primitives import accumulate

__all__ = [
    "ArcFaceLoss",
    "CosFaceLoss",
    "CrossBatchMemory",
    "LargeMarginSoftmaxLoss",
    "NTXentLoss",
    "SphereFaceLoss",
    "SupConLoss",
]


class Options(TypedDict, total=False):
    """What every loss of the package takes besides: accepted as its default says it, refused otherwise."""

    distance: Any  # CosineSimilarity()
    reducer: Any  # AvgNonZeroReducer() of SupConLoss, MeanReducer() of the others
    embedding_regularizer: None
    embedding_reg_weight: float
    collect_stats: bool | None


class ClassifierOptions(Options, total=False):
    """What its losses with class weights take besides."""

    weight_init_func: Callable[[Tensor], Any] | None  # fills W in place; a standard normal draw by default
    weight_regularizer: None
    weight_reg_weight: float


class MetricLoss(nn.Module):
    """Base: `loss(embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None)`, embeddings (n, d)."""

    default_reducer = "MeanReducer"
    extra_repr = Loss.extra_repr

    def __init__(
        self,
        distance: Any = None,
        reducer: Any = None,
        embedding_regularizer: None = None,
        embedding_reg_weight: float = 1,
        collect_stats: bool | None = None,
    ):
        super().__init__()
        _default(distance, "distance", "CosineSimilarity", p=2, power=1)
        _default(reducer, "reducer", self.default_reducer)
        _default(embedding_regularizer, "embedding_regularizer")
        _default(collect_stats or None, "collect_stats")

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings (n, d) with labels (n,); of a pair loss also against ref_emb (m, d), ref_labels (m,).

        Raises:
            ValueError: for `indices_tuple`, and for tensors that do not fit each other.
        """
        _default(indices_tuple, "indices_tuple")
        checks.features(embeddings, "embeddings")
        return self.compute(embeddings, labels, ref_emb, ref_labels)

    def compute(self, x: Tensor, labels: Tensor | None, ref_emb: Tensor | None, ref_labels: Tensor | None) -> Tensor:
        raise NotImplementedError


class PairLoss(MetricLoss):
    """A loss of pairs of rows, of the batch or of the batch with `ref_emb`; rows are scaled to length one.

    Labels are any integers, negative ones too, and a batch that lacks either kind of pair loses 0: as in the package,
    and unlike in :class:`fer_fast.losses.SupConLoss`. As there, a row does not meet itself, nor, where `ref_labels` is
    the very tensor `labels`, the row of `ref_emb` with its number: two views with unique ids need a copy of them.
    """

    formula: ClassVar[Callable[..., Tensor]]
    mode: ClassVar[str]

    def __init__(self, temperature: float, **options: Unpack[Options]):
        super().__init__(**options)
        self.temperature = checks.positive(temperature, "temperature")

    def compute(self, x: Tensor, labels: Tensor | None, ref_emb: Tensor | None, ref_labels: Tensor | None) -> Tensor:
        y = _labels(labels, x, "labels")
        if ref_emb is None:
            if ref_labels is not None:
                raise ValueError("ref_labels: given without ref_emb")
            return self.within(_unit(x), y)
        checks.table(ref_emb, "ref_emb", x.shape[1], x.device)
        ref_y = _labels(ref_labels, ref_emb, "ref_labels")
        aligned = ref_labels is labels and ref_y.device == ref_labels.device  # what is moved is a copy
        own = torch.arange(x.shape[0], device=x.device) if aligned else None
        return self.against(_unit(x), y, _unit(ref_emb).to(x.dtype), ref_y, own)

    def within(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of unit rows against each other."""
        return self.against(z, y, z, y, torch.arange(z.shape[0], device=z.device))

    def against(self, z: Tensor, y: Tensor, ref_z: Tensor, ref_y: Tensor, own: Tensor | None) -> Tensor:
        """The loss of unit rows against others, row i against all but own[i]."""
        if resolve("auto", z.device) == "reference":
            return type(self).formula(z, y, ref_z, ref_y, own, self.temperature)
        return ops.pair_losses(z, y, ref_z, ref_y, own, float(self.temperature), self.mode)


class SupConLoss(PairLoss):
    """L_i = log Σ_{j≠i} e^{s_ij} - 1/|P(i)| Σ_{p∈P(i)} s_ip, s = cos / temperature (Khosla et al. 2020).

    The mean is over the anchors that lose anything (the package's AvgNonZeroReducer); see
    :func:`fer_fast.reference.pair_losses.supcon`.
    """

    default_reducer = "AvgNonZeroReducer"
    formula, mode = pair_losses.supcon, "supcon"

    def __init__(self, temperature: float = 0.1, **options: Unpack[Options]):
        super().__init__(temperature, **options)

    def within(self, z: Tensor, y: Tensor) -> Tensor:
        # Labels below 0 would be left out.
        losses = functional.supcon_loss(z, y - y.amin(), temperature=self.temperature, reduction="none")
        counted = ~(losses <= torch.finfo(losses.dtype).eps / 2)  # NaN counts
        loss = losses.where(counted, 0).sum() / counted.sum().clamp(min=1)
        return loss.where((y != y[:1]).any(), 0)


class NTXentLoss(PairLoss):
    """L_ip = -log( e^{s_ip} / (e^{s_ip} + Σ_{j∈N(i)} e^{s_ij}) ) for every positive pair, s = cos / temperature.

    N(i) are the rows of other classes; the mean is over pairs. See :func:`fer_fast.reference.ntxent`.
    """

    formula, mode = pair_losses.ntxent, "ntxent"

    def __init__(self, temperature: float = 0.07, **options: Unpack[Options]):
        super().__init__(temperature, **options)


class CrossBatchMemory(WholeState):
    """A pair loss of each batch against the newest `memory_size` rows, these among them (Wang et al. 2020, XBM).

    Called as `loss(embeddings, labels, enqueue_mask=None)`. The batch enters the memory first, and no row meets its own
    copy; with `enqueue_mask` (n,), bool, the rows it marks enter, and the others are the batch. The memory gets no
    gradient. A `state_dict` of the package, which lacks the queue's place, leaves the queue empty, as it does there.
    It knows no process groups: like the package's, each process's memory holds that process's rows.
    """

    extra_repr = Loss.extra_repr

    def __init__(self, loss: PairLoss, embedding_size: int, memory_size: int = 1024, miner: None = None):
        super().__init__()
        if not isinstance(loss, PairLoss):
            raise ValueError(f"loss: {type(loss).__name__} given; allowed are SupConLoss, NTXentLoss of {__name__}")
        _default(miner, "miner")
        self.loss, self.miner = loss, None
        self.embedding_size = checks.at_least(embedding_size, 1, "embedding_size")
        self.memory_size = checks.at_least(memory_size, 1, "memory_size")
        self.reset_queue()

    def reset_queue(self) -> None:
        """Forget every row."""
        self.register_buffer("embedding_memory", torch.zeros(self.memory_size, self.embedding_size))
        self.register_buffer("label_memory", torch.zeros(self.memory_size, dtype=torch.int64))
        self.queue_idx, self.has_been_filled = 0, False

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.queue_idx, int(self.has_been_filled)])

    def set_extra_state(self, state: Tensor) -> None:
        queue_idx, filled = state.tolist()
        self.queue_idx, self.has_been_filled = queue_idx, bool(filled)

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        place = {prefix + "_extra_state": torch.zeros(2, dtype=torch.int64)}
        super()._load_from_state_dict(place | state_dict, prefix, *rest)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: None = None,
        enqueue_mask: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch against the memory, which takes it in first."""
        _default(indices_tuple, "indices_tuple")
        checks.table(embeddings, "embeddings", self.embedding_size, None)
        labels = _labels(labels, embeddings, "labels")
        entering = slice(None) if enqueue_mask is None else enqueue_mask
        places = self._enqueue(embeddings[entering].detach(), labels[entering])
        valid = slice(None) if self.has_been_filled else slice(self.queue_idx)
        if enqueue_mask is not None:
            embeddings, labels, places = embeddings[~enqueue_mask], labels[~enqueue_mask], None
        memory = _unit(self.embedding_memory[valid])
        if 0 in (embeddings.shape[0], memory.shape[0]):
            return 0 * embeddings.sum()
        return self.loss.against(_unit(embeddings), labels, memory, self.label_memory[valid], places)

    def _enqueue(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Write rows over the oldest ones: their places (n,)."""
        checks.moves("embedding_memory")
        count = embeddings.shape[0]
        if count > self.memory_size:
            raise ValueError(f"embeddings: {count} rows given; the memory holds {self.memory_size}")
        self.embedding_memory = self.embedding_memory.to(embeddings)
        self.label_memory = self.label_memory.to(labels)
        places = torch.arange(self.queue_idx, self.queue_idx + count, device=embeddings.device) % self.memory_size
        self.embedding_memory[places], self.label_memory[places] = embeddings, labels
        self.has_been_filled |= self.queue_idx + count >= self.memory_size
        self.queue_idx = (self.queue_idx + count) % self.memory_size
        return places


class ClassifierLoss(MetricLoss):
    """Cross-entropy against a weight for each class, the columns of `W` (embedding_size, num_classes)."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float,
        scale: float,
        *,
        weight_init_func: Callable[[Tensor], Any] | None = None,
        weight_regularizer: None = None,
        weight_reg_weight: float = 1,
        **options: Unpack[Options],
    ):
        super().__init__(**options)
        _default(weight_regularizer, "weight_regularizer")
        self.num_classes = checks.at_least(num_classes, 1, "num_classes")
        self.margin, self.scale = margin, checks.positive(scale, "scale")
        drawn = torch.empty(checks.at_least(embedding_size, 1, "embedding_size"), num_classes)
        (weight_init_func or nn.init.normal_)(drawn)
        # Transposed in memory: the engines read W by classes.
        self.W = nn.Parameter(drawn.detach().t().contiguous().t())

    def compute(self, x: Tensor, labels: Tensor | None, ref_emb: Tensor | None, ref_labels: Tensor | None) -> Tensor:
        y = _labels(labels, x, "labels")
        if ref_emb is not None or ref_labels is not None:
            raise ValueError(f"ref_emb: {type(self).__name__} takes none")
        checks.width(x, "embeddings", self.W.t(), "W")
        if self.W.device != x.device:
            self.W.data = self.W.data.to(x.device)  # the parameter that an optimizer holds stays the same
        return self.loss(x, y, self.W.t())

    def loss(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """The loss against class weights (C, d)."""
        raise NotImplementedError

    def get_logits(self, embeddings: Tensor) -> Tensor:
        """The scores (n, C) for inference, without a margin."""
        weight = self.W.t()
        checks.features(embeddings, "embeddings", rows=False)
        checks.width(embeddings, "embeddings", weight, "W")
        return self.scores(embeddings, weight)

    def scores(self, x: Tensor, weight: Tensor) -> Tensor:
        """The scores of embeddings that fit class weights (C, d)."""
        raise NotImplementedError


class CosFaceLoss(ClassifierLoss):
    """Cross-entropy of scale · (cos θ_j - margin·[j = y]); see :func:`fer_fast.reference.lmcl`."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 0.35,
        scale: float = 64,
        **options: Unpack[ClassifierOptions],
    ):
        super().__init__(num_classes, embedding_size, checks.positive(margin, "margin", zero=True), scale, **options)

    def loss(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return functional.lmcl_loss(x, y, weight, s=self.scale, m=self.margin)

    def scores(self, x: Tensor, weight: Tensor) -> Tensor:
        return reference.lmcl_logits(x, weight, self.scale)


class ArcFaceLoss(ClassifierLoss):
    """Cross-entropy of scale · cos θ_j, the target's angle larger by `margin` degrees, from 0 to 180.

    `.margin` is in radians, as in the package. See :func:`fer_fast.reference.arcface`.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 28.6,
        scale: float = 64,
        **options: Unpack[ClassifierOptions],
    ):
        if not 0 <= margin <= 180:
            raise ValueError(f"margin: {margin!r} given; allowed are degrees from 0 to 180")
        super().__init__(num_classes, embedding_size, math.radians(margin), scale, **options)

    def loss(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return functional.arcface_loss(x, y, weight, s=self.scale, m=self.margin)

    def scores(self, x: Tensor, weight: Tensor) -> Tensor:
        return reference.lmcl_logits(x, weight, self.scale)


class AngularLoss(ClassifierLoss):
    """Cross-entropy of scale · ‖x‖ ‖w_j‖ cos θ_j, the target's cos θ replaced by ψ(θ), with no annealed blend."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 4,
        scale: float = 1,
        **options: Unpack[ClassifierOptions],
    ):
        super().__init__(num_classes, embedding_size, checks.at_least(int(margin), 1, "margin"), scale, **options)

    def scaled(self, x: Tensor) -> Tensor:
        """Features whose lengths hold the scale."""
        return x if self.scale == 1 else x * self.scale


class LargeMarginSoftmaxLoss(AngularLoss):
    """L-softmax (Liu et al. 2016); see :func:`fer_fast.reference.l_softmax`, whose λ is 0 here."""

    def loss(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return functional.l_softmax_loss(self.scaled(x), y, weight, m=int(self.margin), lambda_=0.0)

    def scores(self, x: Tensor, weight: Tensor) -> Tensor:
        return reference.softmax_logits(self.scaled(x), weight)


class SphereFaceLoss(AngularLoss):
    """A-softmax (Liu et al. 2017), class weights of length one; see :func:`fer_fast.reference.a_softmax`."""

    def loss(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return functional.a_softmax_loss(self.scaled(x), y, weight, m=int(self.margin), lambda_=0.0)

    def scores(self, x: Tensor, weight: Tensor) -> Tensor:
        return reference.a_softmax_logits(self.scaled(x), weight)


def _default(value: Any, name: str, kind: str | None = None, **settings: Any) -> None:
    """Refuse anything but None and the package's default, an instance of `kind` with these settings."""
    if value is not None and (
        type(value).__name__ != kind or any(getattr(value, key) != setting for key, setting in settings.items())
    ):
        allowed = "None" if kind is None else f"None and {kind}()"
        raise ValueError(f"{name}: {type(value).__name__} given, which {__name__} does not support; allowed: {allowed}")


def _labels(labels: Tensor | None, rows: Tensor, name: str) -> Tensor:
    """Labels of rows, on their device."""
    if labels is None:
        raise ValueError(f"{name}: expected a tensor (n,), got None")
    return checks.labels(labels, rows.shape[0], None, name).to(rows.device)


def _unit(x: Tensor) -> Tensor:
    """Rows scaled to length one as the package does it; half-precision rows by a float32 length."""
    return normalize(accumulate(x), dim=1).to(x.dtype)
