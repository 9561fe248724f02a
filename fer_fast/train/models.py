"""The model shapes: a backbone, a head that turns pooled features into what the losses need, and a classifier."""

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from fer_fast.train.backbones import Backbone
from fer_fast.train.config import ModelConfig


class Outputs(NamedTuple):
    """What a head gives for n images.

    Attributes:
        features: (n, d), what the classifier reads.
        embeddings: (k, n, e) unit rows for the correlation losses, or None.
        projection: (n, p) unit rows for the contrastive losses and the memory bank, or None.
    """

    features: Tensor
    embeddings: Tensor | None = None
    projection: Tensor | None = None


class SingleHead(nn.Module):
    """The features as they are: classifier, margin, center and pairwise losses."""

    def __init__(self, dim: int, config: ModelConfig, num_classes: int):
        super().__init__()
        self.feature_dim = dim

    def forward(self, x: Tensor) -> Outputs:
        return Outputs(x)


class EmbeddingHead(nn.Module):
    """k embeddings of one image, each from a linear layer of its own and L2-normalised (Ad-Corre, section III-A).

    The classifier reads them concatenated, after dropout. k is the number of classes unless `model.embeddings` says
    otherwise.
    """

    def __init__(self, dim: int, config: ModelConfig, num_classes: int):
        super().__init__()
        self.count = config.embeddings or num_classes
        self.layers = nn.Linear(dim, self.count * config.embedding_dim)  # k linear layers side by side
        self.dropout = nn.Dropout(config.dropout)
        self.feature_dim = self.layers.out_features

    def forward(self, x: Tensor) -> Outputs:
        embeddings = F.normalize(self.layers(x).unflatten(1, (self.count, -1)), dim=2)  # (n, k, e)
        return Outputs(self.dropout(embeddings.flatten(1)), embeddings=embeddings.transpose(0, 1).contiguous())


class ProjectionHead(nn.Module):
    """Features for the classifier and a normalised two-layer projection of them for the contrastive losses."""

    def __init__(self, dim: int, config: ModelConfig, num_classes: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, config.projection_dim))
        self.feature_dim = dim
        self.projection_dim = config.projection_dim

    def forward(self, x: Tensor) -> Outputs:
        return Outputs(x, projection=F.normalize(self.layers(x), dim=1))


SHAPES: dict[str, type[nn.Module]] = {
    "single": SingleHead,
    "embeddings": EmbeddingHead,
    "two-views": ProjectionHead,
}


class Encoder(nn.Module):
    """Backbone, an optional linear layer of `model.nodes` nodes, and a head: images (n, channels, h, w) → `Outputs`.

    The linear layer is the 2048→512 of the weighted-cluster paper and the 512 (or 3) nodes of the LMCL paper. No
    activation follows it: the losses place features in all directions around their centers.
    """

    def __init__(self, backbone: Backbone, shape: str, config: ModelConfig, num_classes: int):
        super().__init__()
        self.backbone = backbone
        dim = config.nodes or backbone.feature_dim
        self.layer = nn.Linear(backbone.feature_dim, dim) if config.nodes else nn.Identity()
        self.head = SHAPES[shape](dim, config, num_classes)
        self.feature_dim: int = self.head.feature_dim

    def forward(self, images: Tensor) -> Outputs:
        # The heads normalise and the losses sum: both want full precision whatever the backbone ran in.
        pooled = self.backbone(images).float()
        with torch.autocast(images.device.type, enabled=False):
            return self.head(self.layer(pooled))


def encode(encoder: Encoder, images: Tensor, real_batch: int) -> Outputs:
    """The encoder's outputs for images (n, channels, h, w), a virtual batch (Fard & Mahoor 2022, section IV-B).

    Encodes parts of at most `real_batch` images and joins what they give, so that one loss sees all n. Activations of
    one part exist at a time: the backward computes each part's again, with the same dropout. Gradients are those of all
    n at once, batch normalisation apart, which knows its part alone and counts it once.
    """
    count = math.ceil(len(images) / real_batch)
    if count <= 1:  # of none, where a process got none
        return encoder(images)
    parts = [
        checkpoint(encoder, part, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(encoder)))
        for part in images.tensor_split(count)
    ]
    # Samples are the dimension before the last of every output, embeddings (k, n, e) included.
    return Outputs(*(None if fields[0] is None else torch.cat(fields, -2) for fields in zip(*parts, strict=True)))


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch normalisation in training mode that leaves its running statistics alone."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # without tracking it would save other tensors than the first pass did
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)


class Recogniser(nn.Module):
    """What inference needs and nothing else: the encoder and the classifier loss, which owns the class weights."""

    def __init__(self, encoder: Encoder, classifier: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, d) and logits (n, C) without any margin."""
        features = self.encoder(images).features
        return features, self.classifier.logits(features.float())


@torch.no_grad()
def move_towards(target: nn.Module, source: nn.Module, momentum: float, *, copy_buffers: bool) -> None:
    """target ← momentum·target + (1 - momentum)·source for every parameter, in a few fused operations.

    Args:
        copy_buffers: True takes the buffers (BatchNorm statistics, counters) over from the source, for averaged weights
            that are used in evaluation mode. False leaves the target its own, for a key encoder, which runs in training
            mode: it normalises by its batch and gathers its own statistics.
    """
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), 1 - momentum)
    if copy_buffers:
        pairs = defaultdict(list)  # by dtype, of which one launch takes one: statistics, counters
        for own, other in zip(target.buffers(), source.buffers(), strict=True):
            pairs[own.dtype].append((own, other))
        for alike in pairs.values():
            torch._foreach_copy_(*map(list, zip(*alike, strict=True)))
