"""One opaque operator per engine, each with a fake and an autograd registration.

`torch.compile(fullgraph=True)`, CUDA graphs and `torch.library.opcheck` see these and nothing behind them.
"""

from .enqueue import enqueue
from .losses import ad_corre, class_table, contrastive, pair_losses, pairwise, range_loss, sharded_classifier
from .primitives import anti_center_distances, center_distances, correlation_matrix, log_denominator

__all__ = [
    "ad_corre",
    "anti_center_distances",
    "center_distances",
    "class_table",
    "contrastive",
    "correlation_matrix",
    "enqueue",
    "log_denominator",
    "pair_losses",
    "pairwise",
    "range_loss",
    "sharded_classifier",
]
