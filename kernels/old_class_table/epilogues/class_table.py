"""The epilogues of the class-table engine by name: which functions a loss is, and what they ask of the engine."""

from collections.abc import Callable
from typing import Any, NamedTuple

from .affinity import affinity, affinity_scalar
from .angular_softmax import a_softmax_chain, a_softmax_logits, angular_softmax, l_softmax_chain, l_softmax_logits
from .center import Center, center, center_move, no_constant, no_paper_slope, no_push, no_scalar
from .island import Island, island_constant, island_move
from .lmcl import LMCL, lmcl_chain, lmcl_logits
from .softmax import Softmax, softmax_chain, softmax_logits
from .variant import Variant, variant, variant_constant, variant_move, variant_paper_slope, variant_push
from .weighted_cluster import WeightedCluster, weighted_cluster, weighted_cluster_move, weighted_cluster_scalar


class Classifier(NamedTuple):
    """A classifier's functions (contract: :mod:`.softmax`) and what is scaled to length one for it."""

    arguments: Callable[..., Any]
    logits: Any
    chain: Any
    unit_x: bool = False
    unit_w: bool = False
    lengths: bool = False
    exact_own: bool = False  # x·w_y in float32 also for half-precision features


class Auxiliary(NamedTuple):
    """A center loss's functions (contract: :mod:`.center`) and which properties of the table they read."""

    arguments: Callable[..., Any]
    loss: Any
    move: Any
    scalar: Any = no_scalar
    constant: Any = no_constant
    push: Any = no_push
    paper_slope: Any = no_paper_slope
    spread: bool = False  # Σ_j ‖c_j - c_k‖², their total, σ²
    anti: bool = False  # S_i
    directions: bool = False  # ĉ_k and their cosines


CLASSIFIERS = {
    "softmax": Classifier(Softmax, softmax_logits, softmax_chain),
    "lmcl": Classifier(LMCL, lmcl_logits, lmcl_chain, unit_x=True, unit_w=True, lengths=True),
    "a-softmax": Classifier(
        angular_softmax, a_softmax_logits, a_softmax_chain, unit_w=True, lengths=True, exact_own=True
    ),
    "l-softmax": Classifier(angular_softmax, l_softmax_logits, l_softmax_chain, lengths=True, exact_own=True),
}

AUXILIARIES = {
    "center": Auxiliary(Center, center, center_move),
    "island": Auxiliary(Island, center, island_move, constant=island_constant, directions=True),
    "variant": Auxiliary(
        Variant,
        variant,
        variant_move,
        constant=variant_constant,
        push=variant_push,
        paper_slope=variant_paper_slope,
        spread=True,
        anti=True,
    ),
    "weighted-cluster": Auxiliary(
        WeightedCluster, weighted_cluster, weighted_cluster_move, scalar=weighted_cluster_scalar, spread=True
    ),
    "affinity": Auxiliary(Center, affinity, center_move, scalar=affinity_scalar, spread=True),
    "mva": Auxiliary(Center, affinity, center_move, scalar=affinity_scalar, spread=True),
}

# What the engine compiles in for the half of a joint loss that is not there; none of it is called.
NO_CLASSIFIER = Classifier(Softmax, softmax_logits, softmax_chain)
NO_AUXILIARY = Auxiliary(Center, center, center_move)
