"""Losses of the center family by name. Adding one: a file beside these, and its line here."""

from functools import lru_cache

from ..arguments import Center
from .affinity import AFFINITY
from .center import CENTER
from .island import ISLAND
from .variant import VARIANT
from .weighted_cluster import WEIGHTED_CLUSTER

CENTERS = {
    "center": CENTER,
    "island": ISLAND,
    "variant": VARIANT,
    "weighted-cluster": WEIGHTED_CLUSTER,
    "affinity": AFFINITY,
    "mva": AFFINITY,
}


@lru_cache(64)
def center_rule(name: str, params: tuple[float, ...]) -> Center:
    """What kernels take of a loss of the center family, its settings filled in."""
    if not name:
        return Center()
    rule, arguments = CENTERS[name]
    given = arguments(*params)
    if not getattr(given, "feature_gradient", True):  # the first of the ways to take it is the exact one
        rule = rule._replace(paper_slope=None)
    return rule._replace(a=given)
