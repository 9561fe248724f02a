"""Written by tests/helpers/stubs.py, which says what for."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from fer_fast.checks import Empty, Reduction
from fer_fast.dispatch import Backend
from fer_fast.functional import Term
from fer_fast.functional.whole import Gradients
from fer_fast.registry import LossSpec
from fer_fast.terms import Group, Peers

__all__ = [
    "ASoftmaxLoss",
    "AdCorreLoss",
    "AffinityLoss",
    "ArcFaceLoss",
    "CenterLoss",
    "EDLoss",
    "ENSCLoss",
    "ESCLoss",
    "FDLoss",
    "IslandLoss",
    "JointLoss",
    "LMCLLoss",
    "LSoftmaxLoss",
    "MDLoss",
    "MVALoss",
    "MarginalLoss",
    "MemoryBank",
    "NFDLoss",
    "RangeLoss",
    "SelfConLoss",
    "SoftmaxLoss",
    "SupConLoss",
    "VariantLoss",
    "WeightedClusterLoss",
    "available",
]

class Versioned(Module): ...

class OfGroup:
    @property
    def process_group(self) -> Group: ...
    @process_group.setter
    def process_group(self, group: Group) -> None: ...

class Loss(OfGroup, Versioned):
    name: str
    row: LossSpec
    takes: type | None
    reduction: Reduction
    backend: Backend
    empty: Empty
    def __init__(
        self,
        *,
        params: tuple,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...
    @property
    def params(self) -> tuple: ...
    @property
    def common(self) -> dict[str, str]: ...
    @property
    def peers(self) -> Peers: ...
    def function(self, *tensors: Tensor | int | None, **keywords: Tensor | bool | None) -> Tensor: ...
    def forward(self, features: Tensor, labels: Tensor) -> Tensor: ...
    def __call__(self, features: Tensor, labels: Tensor) -> Tensor: ...
    def without_rows(self, features: Tensor, labels: Tensor | None = None) -> bool: ...
    def extra_repr(self) -> str: ...

class ByClass(Loss):
    num_classes: int
    sharded: bool
    @property
    def process_group(self) -> Group: ...
    @process_group.setter
    def process_group(self, group: Group) -> None: ...
    @property
    def owned(self) -> tuple[str, ...]: ...
    def whole(self, name: str) -> Tensor: ...

class ClassifierLoss(ByClass):
    feature_dim: int
    weight: Parameter
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        params: tuple,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        sharded: bool = False,
        negative_share: float = 1.0,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...
    def term(self) -> Term: ...
    def logits(self, features: Tensor) -> Tensor: ...
    def scores(self, features: Tensor, weight: Tensor) -> Tensor: ...
    def step(self) -> None: ...
    def forward(self, features: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None) -> Tensor: ...
    def __call__(self, features: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None) -> Tensor: ...

class AngularSoftmaxLoss(ClassifierLoss):
    def __init__(self, num_classes: int, feature_dim: int, **common): ...
    @property
    def lambda_(self) -> Tensor: ...
    def term(self) -> Term: ...
    def step(self) -> None: ...

class ASoftmaxLoss(AngularSoftmaxLoss):
    m: int
    lambda_max: float
    lambda_min: float
    gamma: float
    power: float
    def scores(self, features: Tensor, weight: Tensor) -> Tensor: ...
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        m: int = 4,
        lambda_max: float = 1000.0,
        lambda_min: float = 5.0,
        gamma: float = 0.12,
        power: float = 1.0,
        *,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        sharded: bool = False,
        negative_share: float = 1.0,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class ConfusionWeightedLoss(Loss):
    def __init__(self, num_classes: int, history: int = 5, **common): ...
    @property
    def class_difficulty(self) -> Tensor: ...
    def observe(self, labels: Tensor, predictions: Tensor) -> None: ...
    def forward(self, embeddings: Tensor, labels: Tensor, predictions: Tensor | None = None) -> Tensor: ...
    def __call__(self, embeddings: Tensor, labels: Tensor, predictions: Tensor | None = None) -> Tensor: ...

class AdCorreLoss(ConfusionWeightedLoss):
    def __init__(
        self,
        num_classes: int,
        history: int = 5,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class CenterFamilyLoss(Loss):
    num_classes: int
    feature_dim: int
    centers: Tensor
    def __init__(self, num_classes: int, feature_dim: int, **common): ...
    def term(self) -> Term: ...
    def forward(self, features: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None) -> Tensor: ...
    def __call__(self, features: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None) -> Tensor: ...

class AffinityLoss(CenterFamilyLoss):
    alpha: float
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        alpha: float = 0.5,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class ArcFaceLoss(ClassifierLoss):
    s: float | Tensor
    m: float
    def scores(self, features: Tensor, weight: Tensor) -> Tensor: ...
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        s: float | Tensor = 64.0,
        m: float = 0.5,
        *,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        sharded: bool = False,
        negative_share: float = 1.0,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class CenterLoss(CenterFamilyLoss):
    alpha: float
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        alpha: float = 0.5,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class EDLoss(Loss):
    def forward(
        self, embeddings: Tensor, labels: Tensor | None = None, *, sample_weights: Tensor | None = None
    ) -> Tensor: ...
    def __call__(
        self, embeddings: Tensor, labels: Tensor | None = None, *, sample_weights: Tensor | None = None
    ) -> Tensor: ...
    def __init__(
        self,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class ContrastiveLoss(Loss):
    def __init__(self, *, params: tuple, normalize: bool = False, **common): ...

class BankContrastiveLoss(ContrastiveLoss):
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
    ) -> Tensor: ...
    def __call__(
        self,
        embeddings: Tensor,
        labels: Tensor,
        bank: MemoryBank | None = None,
        *,
        own: Tensor | bool = False,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        sample_weights: Tensor | None = None,
    ) -> Tensor: ...

class ENSCLoss(BankContrastiveLoss):
    temperature: float | Tensor
    def __init__(
        self,
        temperature: float | Tensor = 0.1,
        *,
        normalize: bool = False,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class ESCLoss(BankContrastiveLoss):
    temperature: float | Tensor
    def __init__(
        self,
        temperature: float | Tensor = 0.1,
        *,
        normalize: bool = False,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class FDLoss(ConfusionWeightedLoss):
    def __init__(
        self,
        num_classes: int,
        history: int = 5,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class IslandLoss(CenterFamilyLoss):
    lambda1: float
    alpha: float
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        lambda1: float = 10.0,
        alpha: float = 0.5,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class JointLoss(Module):
    classifier: ClassifierLoss
    auxiliary: Module
    weight: float
    def __init__(
        self,
        classifier: ClassifierLoss,
        auxiliary: Module,
        weight: float,
        *,
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...
    def logits(self, features: Tensor) -> Tensor: ...
    def forward(
        self, features: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None, **kwargs
    ) -> Tensor: ...
    def __call__(
        self, features: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None, **kwargs
    ) -> Tensor: ...
    def extra_repr(self) -> str: ...

class LMCLLoss(ClassifierLoss):
    s: float | Tensor
    m: float
    def scores(self, features: Tensor, weight: Tensor) -> Tensor: ...
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        s: float | Tensor = 30.0,
        m: float = 0.35,
        *,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        sharded: bool = False,
        negative_share: float = 1.0,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class LSoftmaxLoss(AngularSoftmaxLoss):
    m: int
    lambda_max: float
    lambda_min: float
    gamma: float
    power: float
    def scores(self, features: Tensor, weight: Tensor) -> Tensor: ...
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        m: int = 4,
        lambda_max: float = 1000.0,
        lambda_min: float = 5.0,
        gamma: float = 0.12,
        power: float = 1.0,
        *,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        sharded: bool = False,
        negative_share: float = 1.0,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class MDLoss(Loss):
    def __init__(
        self,
        num_classes: int,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor: ...
    def __call__(self, embeddings: Tensor, labels: Tensor) -> Tensor: ...

class MVALoss(CenterFamilyLoss):
    alpha: float
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        groups: int = 5,
        alpha: float = 0.5,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...
    def term(self, bank: MemoryBank | None = None) -> Term: ...
    def forward(
        self, features: Tensor, labels: Tensor, bank: MemoryBank | None = None, *, sample_weights: Tensor | None = None
    ) -> Tensor: ...
    def __call__(
        self, features: Tensor, labels: Tensor, bank: MemoryBank | None = None, *, sample_weights: Tensor | None = None
    ) -> Tensor: ...

class MarginalLoss(Loss):
    theta: float
    xi: float
    def __init__(
        self,
        theta: float = 1.2,
        xi: float = 0.3,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class WholeState(Versioned):
    def refuse_state(self, state: dict[str, Tensor]) -> None: ...
    def take_state(self) -> None: ...

class MemoryBank(OfGroup, WholeState):
    def __init__(
        self,
        capacity: int,
        feature_dim: int,
        dtype: torch.dtype = torch.float32,
        process_group: Group = None,
        sharded: bool = False,
    ): ...
    @property
    def peers(self) -> Peers: ...
    @property
    def in_parts(self) -> bool: ...
    def part(self, t: Tensor) -> Tensor: ...
    @property
    def replay_key(self) -> int: ...
    def refuse_state(self, state: dict[str, Tensor]) -> None: ...
    def take_state(self) -> None: ...
    def __len__(self) -> int: ...
    @property
    def features(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    def labels_before(self, rows: int) -> Tensor: ...
    def enqueue(self, embeddings: Tensor, labels: Tensor) -> None: ...
    def groups(self, count: int) -> list[tuple[Tensor, Tensor]]: ...
    def padded_groups(self, count: int) -> tuple[Tensor, Tensor, Tensor] | None: ...
    def extra_repr(self) -> str: ...

class NFDLoss(Loss):
    def __init__(
        self,
        num_classes: int,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...
    def forward(self, embeddings: Tensor, labels: Tensor, predictions: Tensor | None = None) -> Tensor: ...
    def __call__(self, embeddings: Tensor, labels: Tensor, predictions: Tensor | None = None) -> Tensor: ...

class RangeLoss(Loss):
    k: int
    alpha: float
    beta: float
    margin: float
    def __init__(
        self,
        k: int = 2,
        alpha: float = 5e-05,
        beta: float = 0.0001,
        margin: float = 20000.0,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class SelfConLoss(ContrastiveLoss):
    temperature: float | Tensor
    def forward(
        self, embeddings: Tensor, labels: Tensor | None = None, *, sample_weights: Tensor | None = None
    ) -> Tensor: ...
    def __call__(
        self, embeddings: Tensor, labels: Tensor | None = None, *, sample_weights: Tensor | None = None
    ) -> Tensor: ...
    def __init__(
        self,
        temperature: float | Tensor = 0.1,
        *,
        normalize: bool = False,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class SoftmaxLoss(ClassifierLoss):
    bias: Parameter
    class_weights: Tensor | None
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        class_weights: Tensor | Sequence[float] | None = None,
        *,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        sharded: bool = False,
        negative_share: float = 1.0,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...
    def term(self) -> Term: ...
    def scores(self, features: Tensor, weight: Tensor) -> Tensor: ...

class SupConLoss(ContrastiveLoss):
    temperature: float | Tensor
    def forward(self, embeddings: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None) -> Tensor: ...
    def __call__(self, embeddings: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None) -> Tensor: ...
    def __init__(
        self,
        temperature: float | Tensor = 0.1,
        *,
        normalize: bool = False,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class VariantLoss(CenterFamilyLoss):
    lambda1: float
    lambda2: float
    eps1: float
    eps2: float
    alpha: float
    feature_gradient: Literal["exact", "paper"]
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        lambda1: float = 0.4,
        lambda2: float = 0.6,
        eps1: float = 0.01,
        eps2: float = 0.01,
        alpha: float = 0.5,
        feature_gradient: Literal["exact", "paper"] = "exact",
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...

class WeightedClusterLoss(CenterFamilyLoss):
    class_weights: Tensor | None
    alpha: float
    gamma: float
    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        class_weights: Tensor | Sequence[float] | None = None,
        alpha: float = 1.0,
        gamma: float = 1.0,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ): ...
    def term(self) -> Term: ...

def available() -> list[LossSpec]: ...
