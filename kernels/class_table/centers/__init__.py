"""Losses of the center family by name. Adding one: a file beside these, and its line here."""

from ..arguments import Center
from .affinity import AFFINITY
from .center import CENTER
from .island import ISLAND
from .variant import VARIANT
from .weighted_cluster import WEIGHTED_CLUSTER

CENTERS: dict[str, Center] = {
    "center": CENTER,
    "island": ISLAND,
    "variant": VARIANT,
    "weighted-cluster": WEIGHTED_CLUSTER,
    "affinity": AFFINITY,
    "mva": AFFINITY,
}
