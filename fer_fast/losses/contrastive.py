"""The contrastive family: modules called with L2-normalised embeddings z (n, d), their labels, and a memory bank."""

from torch import Tensor

from .bank import MemoryBank
from .base import Loss


class SelfConLoss(Loss):
    """Rows i and i+N are two views of an image and each other's only positive.

    See :func:`fer_fast.reference.selfcon`.
    """

    name = "selfcon"

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of embeddings (2N, d), rows i and i+N of which are two views of an image."""
        return self.function(z, y)


class SupConLoss(Loss):
    """All rows of a class are positives (Khosla et al. 2020); see :func:`fer_fast.reference.supcon`."""

    name = "supcon"

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.function(z, y)


class BankContrastiveLoss(Loss):
    """A contrastive loss with a bank, called as `loss(z, y, bank=None)`.

    The bank is a :class:`MemoryBank`, or tensors `ref_emb` (M, d) and `ref_labels` (M,) as pytorch-metric-learning
    names them. It is read, never written, and gets no gradient.
    """

    def forward(
        self,
        z: Tensor,
        y: Tensor,
        bank: MemoryBank | None = None,
        *,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar, of embeddings (n, d) and labels (n,), with a bank or its rows (M, d) and labels (M,)."""
        if bank is not None:
            if ref_emb is not None or ref_labels is not None:
                raise ValueError("bank: given together with ref_emb/ref_labels; give one of the two")
            ref_emb, ref_labels = bank.features, bank.labels
        return self.function(z, y, ref_emb, ref_labels)


class ESCLoss(BankContrastiveLoss):
    """SupCon with every bank row in the denominator; see :func:`fer_fast.reference.esc`."""

    name = "esc"


class ENSCLoss(BankContrastiveLoss):
    """SupCon with the bank rows of other classes in the denominator; see :func:`fer_fast.reference.ensc`."""

    name = "ensc"
