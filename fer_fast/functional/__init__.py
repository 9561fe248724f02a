"""Every loss and primitive as a function of tensors, with the `backend` keyword. :mod:`fer_fast.losses` keeps state."""

from .center import affinity_loss, center_loss, island_loss, mva_loss, variant_loss, weighted_cluster_loss
from .class_table import Term, joint_loss
from .classifier import a_softmax_loss, arcface_loss, l_softmax_loss, lmcl_loss, softmax_loss
from .contrastive import contrastive_log_denominator, ensc_loss, esc_loss, selfcon_loss, supcon_loss
from .correlation import ad_corre_loss, ed_loss, fd_loss, md_loss, nfd_loss
from .pairwise import marginal_loss, range_loss
from .primitives import anti_center_distances, center_distances, correlation_matrix

__all__ = [
    "Term",
    "a_softmax_loss",
    "ad_corre_loss",
    "affinity_loss",
    "anti_center_distances",
    "arcface_loss",
    "center_distances",
    "center_loss",
    "contrastive_log_denominator",
    "correlation_matrix",
    "ed_loss",
    "ensc_loss",
    "esc_loss",
    "fd_loss",
    "island_loss",
    "joint_loss",
    "l_softmax_loss",
    "lmcl_loss",
    "marginal_loss",
    "md_loss",
    "mva_loss",
    "nfd_loss",
    "range_loss",
    "selfcon_loss",
    "softmax_loss",
    "supcon_loss",
    "variant_loss",
    "weighted_cluster_loss",
]
