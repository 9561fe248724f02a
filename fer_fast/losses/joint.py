"""A classifier and an auxiliary loss as one."""

import inspect

from torch import Tensor, nn

from .. import checks
from ..functional import joint_loss
from ..functional.class_table import leave_out
from ..functional.whole import Gradients
from ..terms import Group
from .base import Loss, no_weights
from .center import CenterFamilyLoss
from .classifier import ClassifierLoss


class JointLoss(nn.Module):
    """classifier(features, labels) + weight · auxiliary(features, labels, **kwargs).

    Where the auxiliary loss is of the center family and both share reduction and backend, one pass over the features
    gives the loss, every gradient and the moved centers. Otherwise the two are computed one after the other. `weight`
    is the paper's λ: 0.001 for variant loss, 1.0 for weighted-cluster, 0.5 for center loss. `sample_weights` (n,)
    multiply the rows of both, and rows with the classifier's `ignore_index` are absent from both. A batch without rows
    is an error, or 0 where both losses have `empty="zero"`. `process_group` and `gradients`, where given, become those
    of both.
    """

    classifier: ClassifierLoss
    auxiliary: nn.Module
    weight: float

    def __init__(
        self,
        classifier: ClassifierLoss,
        auxiliary: nn.Module,
        weight: float,
        *,
        process_group: Group = None,
        gradients: Gradients = "mean",
    ):
        super().__init__()
        if not isinstance(classifier, ClassifierLoss):
            raise ValueError(
                f"classifier: {type(classifier).__name__} given; it must own class weights, as SoftmaxLoss does"
            )
        of_both = classifier.reduction, getattr(auxiliary, "reduction", "mean")
        if of_both.count("none") == 1:
            raise ValueError(f'reduction: {of_both[0]!r} beside {of_both[1]!r}; "none" is of both losses or neither')
        for size in ("num_classes", "feature_dim") if isinstance(auxiliary, Loss) else ():
            ours = getattr(classifier, size)
            if (theirs := getattr(auxiliary, size, ours)) != ours:
                raise ValueError(
                    f"{size}: {ours} of {type(classifier).__name__} beside {theirs} of {type(auxiliary).__name__}; "
                    "both take the same features and labels"
                )
        self.classifier = classifier
        self.auxiliary = auxiliary
        self.weight = checks.finite(weight, "weight")
        if process_group is not None:
            for loss in filter(lambda of: isinstance(of, Loss), (classifier, auxiliary)):
                loss.process_group, loss.gradients = process_group, gradients
        self.weighs = "sample_weights" in inspect.signature(auxiliary.forward).parameters

    def logits(self, features: Tensor) -> Tensor:
        """The classifier's scores (n, C) for inference."""
        return self.classifier.logits(features)

    def forward(self, features: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None, **kwargs) -> Tensor:
        """The loss, a scalar, of features (n, d) and labels (n,); `kwargs` are the auxiliary loss's."""
        classifier, auxiliary = self.classifier, self.auxiliary
        apart = not isinstance(auxiliary, CenterFamilyLoss) or auxiliary.common != classifier.common
        apart |= classifier.sharded  # whose rows go to other classes than the centers' do
        empty = classifier.empty == "zero" and classifier.process_group is None
        if apart or (empty and classifier.without_rows(features, labels)):
            return self._apart(features, labels, sample_weights, kwargs)
        terms = classifier.term(), auxiliary.term(**kwargs)
        loss = joint_loss(features, labels, *terms, self.weight, sample_weights=sample_weights, **classifier.common)
        classifier.step()
        return loss

    def _apart(self, features: Tensor, labels: Tensor, sample_weights: Tensor | None, kwargs: dict) -> Tensor:
        """The two losses one after the other."""
        if sample_weights is not None and not self.weighs:
            raise no_weights(self.auxiliary)
        loss = self.classifier(features, labels, sample_weights=sample_weights)
        ignored = self.classifier.ignore_index
        if ignored is not None and isinstance(self.auxiliary, CenterFamilyLoss):
            labels, sample_weights = leave_out(labels, ignored, sample_weights)
        elif ignored is not None:
            labels = labels.masked_fill(labels == ignored, -1)  # which takes a row out
        if self.weighs:
            kwargs = kwargs | {"sample_weights": sample_weights}
        return loss + self.weight * self.auxiliary(features, labels, **kwargs)

    def extra_repr(self) -> str:
        return f"weight={self.weight}"
