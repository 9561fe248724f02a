"""Ad-Corre (Fard & Mahoor 2022, eq. 12): feature, mean and embedding discriminator together."""

from torch import Tensor

from .embedding_discriminator import ed
from .feature_discriminator import fd
from .mean_discriminator import md
from .params import formula


@formula()
def ad_corre(e: Tensor, y: Tensor, class_difficulty: Tensor, reduction: str = "mean") -> Tensor:
    """L = FD + MD + ED.

    embeddings e (k, n, d), labels y (n,), class_difficulty w (C,) as in :func:`~.feature_discriminator.fd`.
    """
    return fd(e, y, class_difficulty, reduction) + md(e, y, len(class_difficulty), reduction) + ed(e, reduction)
