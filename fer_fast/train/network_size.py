"""How large the k-embedding networks of Ad-Corre are: parameters and operations, without training or memory."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fer_fast.train.backbones import build_backbone
from fer_fast.train.config import RunConfig
from fer_fast.train.models import EmbeddingHead


def embedding_sizes(config: RunConfig, counts: Iterable[int]) -> dict[str, dict[str, int]]:
    """Size of a backbone with k embeddings, as the paper counts it: Ad-Corre, Table 11.

    Operations are those of convolutions and matrix products for one image, a multiplication with its addition one
    operation. Parameters include the running statistics of BatchNorm, as Keras counts them, and a classifier of k
    classes.

    Args:
        config: of the backbone, the size of the image and the width of an embedding.
        counts: the k; 0 is the backbone alone.

    Returns:
        "parameters" and "operations" -> k as text -> number.
    """
    side, channels = config.augment.size, config.augment.channels
    sizes = {}
    with torch.device("meta"):
        backbone = build_backbone(config.backbone, channels).eval()
        features, *alone = _run(backbone, torch.empty(1, channels, side, side))
        for k in counts:
            sizes[str(k)] = alone
            if k:
                head = EmbeddingHead(backbone.feature_dim, replace(config.model, embeddings=k), k).eval()
                outputs, *embedded = _run(head, features)
                _, *classified = _run(nn.Linear(head.feature_dim, k), outputs.features)
                sizes[str(k)] = [sum(parts) for parts in zip(alone, embedded, classified, strict=True)]
    return {name: {k: size[i] for k, size in sizes.items()} for i, name in enumerate(("parameters", "operations"))}


def _run(module: nn.Module, given: Any) -> tuple[Any, int, int]:
    """What a module gives, its parameters and its operations."""
    statistics = (buffer for name, buffer in module.named_buffers() if "running_" in name)
    parameters = sum(tensor.numel() for tensor in (*module.parameters(), *statistics))
    with FlopCounterMode(display=False) as counter:
        output = module(given)
    return output, parameters, counter.get_total_flops() // 2
