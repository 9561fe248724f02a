"""Every loss as a module, `loss(features, labels)` -> scalar, and the memory bank.

All take `reduction="mean"|"sum"` and `backend="auto"|"triton"|"blocked"|"reference"`. :func:`available` lists them.
"""

from ..registry import available
from .bank import MemoryBank
from .center import AffinityLoss, CenterLoss, IslandLoss, MVALoss, VariantLoss, WeightedClusterLoss
from .classifier import ArcFaceLoss, ASoftmaxLoss, LMCLLoss, LSoftmaxLoss, SoftmaxLoss
from .contrastive import ENSCLoss, ESCLoss, SelfConLoss, SupConLoss
from .correlation import AdCorreLoss, EDLoss, FDLoss, MDLoss, NFDLoss
from .joint import JointLoss
from .pairwise import MarginalLoss, RangeLoss

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
