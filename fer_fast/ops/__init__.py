"""One opaque operator per engine, each with a fake and an autograd registration.

`torch.compile(fullgraph=True)`, CUDA graphs and `torch.library.opcheck` see these and nothing behind them.
"""

from .enqueue import enqueue
from .library import given_or_learnt
from .losses import ad_corre, class_table, contrastive, pair_losses, pairwise, range_loss
from .primitives import anti_center_distances, center_distances, contrastive_rows, correlation_matrix

__all__ = [
    "ad_corre",
    "anti_center_distances",
    "center_distances",
    "class_table",
    "contrastive",
    "contrastive_rows",
    "correlation_matrix",
    "enqueue",
    "given_or_learnt",
    "pair_losses",
    "pairwise",
    "range_loss",
]
