"""How large the k-embedding networks of Ad-Corre are: parameters and operations, without training or memory."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fer_fast.train.config import RunConfig
from fer_fast.train.learner import build_encoder


def embedding_sizes(config: RunConfig, counts: tuple[int, ...]) -> dict[str, dict[str, int]]:
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
    sizes = {str(k): _size(config, k) for k in counts}
    return {name: {k: size[i] for k, size in sizes.items()} for i, name in enumerate(("parameters", "operations"))}


def _size(config: RunConfig, k: int) -> tuple[int, int]:
    side = config.augment.size
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network: nn.Module = build_encoder(config, "embeddings", k or 1).eval()
        features = network.backbone(torch.empty(1, config.augment.channels, side, side))
        if k:
            network.classifier = nn.Linear(network.feature_dim, k)
            network.classifier(network.head(features).features)
        else:
            network = network.backbone
    statistics = (buffer for name, buffer in network.named_buffers() if "running_" in name)
    parameters = sum(tensor.numel() for tensor in (*network.parameters(), *statistics))
    return parameters, counter.get_total_flops() // 2
