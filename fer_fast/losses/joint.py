"""A classifier and an auxiliary loss as one."""

from torch import Tensor, nn

from ..functional import joint_loss
from .center import CenterFamilyLoss
from .classifier import ClassifierLoss


class JointLoss(nn.Module):
    """classifier(x, y) + weight · auxiliary(x, y, **kwargs).

    Where the auxiliary loss is of the center family and both share reduction and backend, one pass over the features
    gives the loss, every gradient and the moved centers. Otherwise the two are computed one after the other. `weight`
    is the paper's λ: 0.001 for variant loss, 1.0 for weighted-cluster, 0.5 for center loss.
    """

    def __init__(self, classifier: ClassifierLoss, auxiliary: nn.Module, weight: float):
        super().__init__()
        if not isinstance(classifier, ClassifierLoss):
            raise ValueError(
                f"classifier: {type(classifier).__name__} given; it must own class weights, as SoftmaxLoss does"
            )
        self.classifier = classifier
        self.auxiliary = auxiliary
        self.weight = float(weight)

    def logits(self, x: Tensor) -> Tensor:
        """The classifier's scores (n, C) for inference."""
        return self.classifier.logits(x)

    def forward(self, x: Tensor, y: Tensor, **kwargs) -> Tensor:
        classifier, auxiliary = self.classifier, self.auxiliary
        reduction, backend = classifier.reduction, classifier.backend
        alike = isinstance(auxiliary, CenterFamilyLoss) and auxiliary.reduction == reduction
        if not alike or auxiliary.backend != backend:
            return classifier(x, y) + self.weight * auxiliary(x, y, **kwargs)
        terms = classifier.term(), auxiliary.term(**kwargs)
        loss = joint_loss(x, y, *terms, self.weight, reduction=reduction, backend=backend)
        classifier.step()
        return loss

    def extra_repr(self) -> str:
        return f"weight={self.weight}"
