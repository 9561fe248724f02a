"""The contrastive family: modules called with L2-normalised embeddings (n, d), their labels, and a memory bank."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..functional.contrastive import without
from .bank import MemoryBank
from .base import Loss


class ContrastiveLoss(Loss):
    """A contrastive loss of rows of length one.

    Args:
        temperature: τ, or a tensor or parameter () that is learnt.
        normalize: scale the rows of batch and bank to length one first, gradients through it. Else rows are taken as
            they are; under `torch.autograd.detect_anomaly()` others than of length one are an error.

    A row with a negative label is neither anchor, key nor count. Each call takes `sample_weights` (n,), which multiply
    the anchors' terms and which "mean" divides by; `reduction="none"` gives the terms, (n,).
    """

    def __init__(self, *, params: tuple, normalize: bool = False, **common):
        super().__init__(params=params, **common)
        self.normalize = bool(normalize)


class SelfConLoss(ContrastiveLoss):
    """Rows i and i+N are two views of an image and each other's only positive.

    See :func:`fer_fast.reference.selfcon`.
    """

    name = "selfcon"

    def forward(
        self, embeddings: Tensor, labels: Tensor | None = None, *, sample_weights: Tensor | None = None
    ) -> Tensor:
        """The loss, a scalar, of embeddings (2N, d), rows i and i+N of which are two views of an image."""
        return self.function(embeddings, labels, normalize=self.normalize, sample_weights=sample_weights)


class SupConLoss(ContrastiveLoss):
    """All rows of a class are positives (Khosla et al. 2020); see :func:`fer_fast.reference.supcon`."""

    name = "supcon"

    def forward(self, embeddings: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of embeddings (n, d) and labels (n,)."""
        return self.function(embeddings, labels, normalize=self.normalize, sample_weights=sample_weights)


class BankContrastiveLoss(ContrastiveLoss):
    """A contrastive loss with a bank, called as `loss(embeddings, labels, bank=None)`.

    The bank is a :class:`MemoryBank`, or tensors `ref_emb` (M, d) and `ref_labels` (M,) as pytorch-metric-learning
    names them. It is read, never written, and gets no gradient.

    Enqueue a batch after its backward. Rows of the batch that are in the bank already would count twice, and with ESC
    as their own negatives: name them by `own`, and they take no part in the call. `own=True` is the newest n rows of a
    :class:`MemoryBank`, the batch having been its last; else a mask (M,) or row numbers, -1 for none. A bank's mask may
    be of its valid rows or of all its capacity.

    With a process group the bank is the same on every process, as a :class:`MemoryBank` of that group is, or its rows
    lie on them in parts (`MemoryBank(..., sharded=True)`): all anchors then meet each part, on the blocked engine, and
    their sums are brought together. Masks and row numbers are of the whole bank, and the same everywhere.
    """

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        bank: MemoryBank | None = None,
        *,
        own: Tensor | bool = False,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        sample_weights: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar, of embeddings (n, d) and labels (n,), with a bank or its rows (M, d) and labels (M,)."""
        if bank is not None:
            if ref_emb is not None or ref_labels is not None:
                raise ValueError("bank: given together with ref_emb/ref_labels; give one of the two")
            MemoryBank.refuse_others(bank)
            ref_emb, ref_labels = bank.ring, bank.ring_labels
            if isinstance(own, Tensor) and own.dtype == torch.bool and own.ndim == 1:  # of the valid rows, the first
                own = pad(own, (0, max(bank.capacity - len(own), 0)))
            if (bank.in_parts or own is True) and bank.peers.group != self.peers.group:
                what = "own: True" if own is True else "bank: a sharded one"
                raise ValueError(f"{what} asks for a loss and a bank of the same process_group")
        if own is True:
            if bank is None:
                raise ValueError("own: True is of a MemoryBank; of other rows give a mask or row numbers")
            ref_labels = bank.labels_before(embeddings.shape[0])
        given = {
            "own": None if isinstance(own, bool) else own,
            "normalize": self.normalize,
            "sample_weights": sample_weights,
        }
        if bank is not None and bank.in_parts:
            ref_labels = bank.part(without(ref_labels, given["own"]))  # named among the rows of all
            given |= {"own": None, "sharded": True}
        return self.function(embeddings, labels, ref_emb, ref_labels, **given)


class ESCLoss(BankContrastiveLoss):
    """SupCon with every bank row in the denominator; see :func:`fer_fast.reference.esc`.

    Enqueue a batch after its backward, or name its rows in the bank by `own`.
    """

    name = "esc"


class ENSCLoss(BankContrastiveLoss):
    """SupCon with the bank rows of other classes in the denominator; see :func:`fer_fast.reference.ensc`.

    Enqueue a batch after its backward, or name its rows in the bank by `own`.
    """

    name = "ensc"
