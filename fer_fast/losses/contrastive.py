"""The contrastive family: modules called with L2-normalised embeddings z (n, d), their labels, and a memory bank."""

from torch import Tensor

from .. import checks, functional
from .bank import MemoryBank
from .base import Loss


class ContrastiveLoss(Loss):
    """Base of the contrastive losses: a temperature τ > 0, by which the dot products are divided."""

    def __init__(self, temperature: float = 0.1, **common):
        super().__init__(**common)
        self.temperature = checks.positive(temperature, "temperature")


class SelfConLoss(ContrastiveLoss):
    """Rows i and i+N are two views of an image and each other's only positive.

    See :func:`fer_fast.reference.selfcon`.
    """

    name = "selfcon"

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return functional.selfcon_loss(z, y, temperature=self.temperature, **self.common)


class SupConLoss(ContrastiveLoss):
    """All rows of a class are positives (Khosla et al. 2020); see :func:`fer_fast.reference.supcon`."""

    name = "supcon"

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return functional.supcon_loss(z, y, temperature=self.temperature, **self.common)


class BankContrastiveLoss(ContrastiveLoss):
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
        if bank is not None:
            if ref_emb is not None or ref_labels is not None:
                raise ValueError("bank: given together with ref_emb/ref_labels; give one of the two")
            ref_emb, ref_labels = bank.features, bank.labels
        return self._loss(z, y, ref_emb, ref_labels, temperature=self.temperature, **self.common)


class ESCLoss(BankContrastiveLoss):
    """SupCon with every bank row in the denominator; see :func:`fer_fast.reference.esc`."""

    name = "esc"
    _loss = staticmethod(functional.esc_loss)


class ENSCLoss(BankContrastiveLoss):
    """SupCon with the bank rows of other classes in the denominator; see :func:`fer_fast.reference.ensc`."""

    name = "ensc"
    _loss = staticmethod(functional.ensc_loss)
