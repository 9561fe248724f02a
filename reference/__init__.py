"""Every loss and primitive in plain PyTorch, readable beside the papers. Installed as ``fer_fast.reference``.

The reference defines what is correct: each fast path is held against it in float64. Functions take their inputs as
given (checks are the public API's) and return a scalar; `*_update` functions return moved centers.
"""

if __name__ != "fer_fast.reference":
    raise ImportError(
        "import this package as fer_fast.reference: under its bare name it would shadow other people's code"
    )

from .ad_corre import ad_corre
from .affinity import AffinityParams, affinity
from .angular_softmax import AngularParams, a_softmax, a_softmax_logits, l_softmax
from .arcface import ArcFaceParams, arcface
from .center import CenterParams, center, center_update
from .contrastive import ContrastiveParams, ensc, esc, selfcon, supcon
from .embedding_discriminator import ed
from .feature_discriminator import class_difficulty, confusion_counts, fd, nfd
from .island import IslandParams, island, island_update
from .lmcl import LMCLParams, lmcl, lmcl_logits
from .marginal import MarginalParams, marginal
from .mean_discriminator import md
from .mva import MVAParams, mva
from .pair_losses import ntxent
from .primitives import (
    anti_center_distances,
    center_distances,
    contrastive_log_denominator,
    correlation_matrix,
)
from .range_loss import RangeParams, range_loss
from .softmax import SoftmaxParams, softmax, softmax_logits
from .variant import VariantParams, variant, variant_update
from .weighted_cluster import WeightedClusterParams, weighted_cluster, weighted_cluster_update

__all__ = [
    "AffinityParams",
    "AngularParams",
    "ArcFaceParams",
    "CenterParams",
    "ContrastiveParams",
    "IslandParams",
    "LMCLParams",
    "MVAParams",
    "MarginalParams",
    "RangeParams",
    "SoftmaxParams",
    "VariantParams",
    "WeightedClusterParams",
    "a_softmax",
    "a_softmax_logits",
    "ad_corre",
    "affinity",
    "anti_center_distances",
    "arcface",
    "center",
    "center_distances",
    "center_update",
    "class_difficulty",
    "confusion_counts",
    "contrastive_log_denominator",
    "correlation_matrix",
    "ed",
    "ensc",
    "esc",
    "fd",
    "island",
    "island_update",
    "l_softmax",
    "lmcl",
    "lmcl_logits",
    "marginal",
    "md",
    "mva",
    "nfd",
    "ntxent",
    "range_loss",
    "selfcon",
    "softmax",
    "softmax_logits",
    "supcon",
    "variant",
    "variant_update",
    "weighted_cluster",
    "weighted_cluster_update",
]
