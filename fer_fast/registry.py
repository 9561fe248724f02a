"""The one table of losses: public API, operators, tests, benches, documentation and command line all read it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from inspect import signature

from . import reference
from .suggest import one_of

VARIANT_LOSS = "Pham et al. 2023, variant loss"
WEIGHTED_CLUSTER = "Ngo & Yoon 2020, weighted-cluster loss"
AD_CORRE = "Fard & Mahoor 2022, Ad-Corre"
LMCL = "Lu & Wu 2022, LMCL with custom classes"
ECAN = "Zhu et al. 2022, ECAN"


@dataclass(frozen=True)
class LossSpec:
    """One loss: its names, where it comes from, what computes it, and the reference that says what is right."""

    name: str  # on the command line
    cls: str  # in fer_fast.losses
    function: str  # in fer_fast.functional
    family: str  # classifier, center, correlation, pairwise or contrastive: what the call takes
    engine: str  # class_table, ad_corre, pairwise, range_loss or contrastive: what computes it
    paper: str
    reference: Callable
    update: Callable | None = None  # the move of the centers
    params: tuple[str, ...] = ()  # hyper-parameters in the order the engine takes them
    backends: tuple[str, ...] = ("triton", "blocked", "reference")


_ANGULAR = ("m", "lambda_")
_CENTER = reference.center_update

LOSSES: dict[str, LossSpec] = {
    spec.name: spec
    for spec in (
        LossSpec(
            "softmax", "SoftmaxLoss", "softmax_loss", "classifier", "class_table", WEIGHTED_CLUSTER, reference.softmax
        ),
        LossSpec(
            "weighted-softmax",
            "SoftmaxLoss",
            "softmax_loss",
            "classifier",
            "class_table",
            WEIGHTED_CLUSTER,
            reference.softmax,
        ),
        LossSpec("lmcl", "LMCLLoss", "lmcl_loss", "classifier", "class_table", LMCL, reference.lmcl, params=("s", "m")),
        LossSpec(
            "a-softmax",
            "ASoftmaxLoss",
            "a_softmax_loss",
            "classifier",
            "class_table",
            LMCL,
            reference.a_softmax,
            params=_ANGULAR,
        ),
        LossSpec(
            "l-softmax",
            "LSoftmaxLoss",
            "l_softmax_loss",
            "classifier",
            "class_table",
            LMCL,
            reference.l_softmax,
            params=_ANGULAR,
        ),
        LossSpec(
            "center",
            "CenterLoss",
            "center_loss",
            "center",
            "class_table",
            VARIANT_LOSS,
            reference.center,
            _CENTER,
            ("alpha",),
        ),
        LossSpec(
            "island",
            "IslandLoss",
            "island_loss",
            "center",
            "class_table",
            VARIANT_LOSS,
            reference.island,
            reference.island_update,
            ("lambda1", "alpha"),
        ),
        LossSpec(
            "variant",
            "VariantLoss",
            "variant_loss",
            "center",
            "class_table",
            VARIANT_LOSS,
            reference.variant,
            reference.variant_update,
            ("lambda1", "lambda2", "eps1", "eps2", "alpha", "feature_gradient"),
        ),
        LossSpec(
            "weighted-cluster",
            "WeightedClusterLoss",
            "weighted_cluster_loss",
            "center",
            "class_table",
            WEIGHTED_CLUSTER,
            reference.weighted_cluster,
            reference.weighted_cluster_update,
            ("alpha", "gamma"),
        ),
        LossSpec(
            "affinity",
            "AffinityLoss",
            "affinity_loss",
            "center",
            "class_table",
            ECAN,
            reference.affinity,
            _CENTER,
            ("alpha",),
        ),
        LossSpec("mva", "MVALoss", "mva_loss", "center", "class_table", ECAN, reference.mva, _CENTER, ("alpha",)),
        LossSpec("nfd", "NFDLoss", "nfd_loss", "correlation", "ad_corre", AD_CORRE, reference.nfd),
        LossSpec("fd", "FDLoss", "fd_loss", "correlation", "ad_corre", AD_CORRE, reference.fd),
        LossSpec("md", "MDLoss", "md_loss", "correlation", "ad_corre", AD_CORRE, reference.md),
        LossSpec("ed", "EDLoss", "ed_loss", "correlation", "ad_corre", AD_CORRE, reference.ed),
        LossSpec("ad-corre", "AdCorreLoss", "ad_corre_loss", "correlation", "ad_corre", AD_CORRE, reference.ad_corre),
        LossSpec(
            "marginal",
            "MarginalLoss",
            "marginal_loss",
            "pairwise",
            "pairwise",
            VARIANT_LOSS,
            reference.marginal,
            None,
            ("theta", "xi"),
        ),
        LossSpec(
            "range",
            "RangeLoss",
            "range_loss",
            "pairwise",
            "range_loss",
            VARIANT_LOSS,
            reference.range_loss,
            None,
            ("k", "alpha", "beta", "margin"),
        ),
        *(
            LossSpec(name, cls, f"{name}_loss", "contrastive", "contrastive", ECAN, function, None, ("temperature",))
            for name, cls, function in (
                ("selfcon", "SelfConLoss", reference.selfcon),
                ("supcon", "SupConLoss", reference.supcon),
                ("esc", "ESCLoss", reference.esc),
                ("ensc", "ENSCLoss", reference.ensc),
            )
        ),
    )
}


def find(name: str) -> LossSpec:
    """The row of a loss by its command-line name; an unknown one is an `InputError` that names the nearest."""
    return LOSSES[one_of(name, LOSSES, "loss")]


def available() -> list[LossSpec]:
    """Every loss, with its family, paper and backends."""
    return list(LOSSES.values())


def call(function: Callable, **given):
    """`function` with those of the given arguments it takes: reference losses and updates share one set of names."""
    return function(**{name: given[name] for name in _parameters(function) if name in given})


@cache
def _parameters(function: Callable) -> tuple[str, ...]:
    return tuple(signature(function).parameters)
