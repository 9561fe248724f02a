"""The one table of losses: public API, operators, tests, benches, documentation and command line all read it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from inspect import signature

from . import communication as sent
from . import reference as ref
from .checks import REDUCTIONS
from .communication import Communication
from .suggest import one_of

DENG_2019 = "Deng et al. 2019, ArcFace"
PHAM_2023 = "Pham et al. 2023, variant loss"
NGO_2020 = "Ngo & Yoon 2020, weighted-cluster loss"
FARD_2022 = "Fard & Mahoor 2022, Ad-Corre"
LU_2022 = "Lu & Wu 2022, LMCL with custom classes"
ZHU_2022 = "Zhu et al. 2022, ECAN"


@dataclass(frozen=True)
class LossSpec:
    """One loss: its names, where it comes from, what computes it, and the reference that says what is right."""

    name: str  # on the command line
    cls: str  # in fer_fast.losses
    family: str  # classifier, center, correlation, pairwise or contrastive: what the call takes
    engine: str  # class_table, ad_corre, pairwise, range_loss or contrastive: what computes it
    paper: str
    reference: Callable  # the formula
    communication: Communication  # of processes that have a part of the batch each
    backends: tuple[str, ...] = ("triton", "blocked", "reference")

    @property
    def function(self) -> str:
        """The name in fer_fast.functional: the formula's and `_loss`."""
        return f"{self.reference.__name__.removesuffix('_loss')}_loss"

    @property
    def params(self) -> type:
        """The NamedTuple of hyper-parameters with their defaults, in the order the engine takes them."""
        return self.reference.params

    @property
    def reductions(self) -> tuple[str, ...]:
        """What it can be reduced to: the losses of the rows, where it is a sum of them, are "none"."""
        return (*REDUCTIONS, "none") if self.reference.by_row else REDUCTIONS

    @property
    def update(self) -> Callable | None:
        """The move of the centers."""
        return self.reference.update


LOSSES: dict[str, LossSpec] = {
    spec.name: spec
    for spec in (
        LossSpec("softmax", "SoftmaxLoss", "classifier", "class_table", NGO_2020, ref.softmax, sent.CLASSIFIER),
        LossSpec(
            "weighted-softmax", "SoftmaxLoss", "classifier", "class_table", NGO_2020, ref.softmax, sent.CLASSIFIER
        ),
        LossSpec("lmcl", "LMCLLoss", "classifier", "class_table", LU_2022, ref.lmcl, sent.CLASSIFIER),
        LossSpec("arcface", "ArcFaceLoss", "classifier", "class_table", DENG_2019, ref.arcface, sent.CLASSIFIER),
        LossSpec("a-softmax", "ASoftmaxLoss", "classifier", "class_table", LU_2022, ref.a_softmax, sent.CLASSIFIER),
        LossSpec("l-softmax", "LSoftmaxLoss", "classifier", "class_table", LU_2022, ref.l_softmax, sent.CLASSIFIER),
        LossSpec("center", "CenterLoss", "center", "class_table", PHAM_2023, ref.center, sent.CENTERS),
        LossSpec("island", "IslandLoss", "center", "class_table", PHAM_2023, ref.island, sent.CENTERS),
        LossSpec("variant", "VariantLoss", "center", "class_table", PHAM_2023, ref.variant, sent.VARIANT),
        LossSpec(
            "weighted-cluster",
            "WeightedClusterLoss",
            "center",
            "class_table",
            NGO_2020,
            ref.weighted_cluster,
            sent.CENTERS,
        ),
        LossSpec("affinity", "AffinityLoss", "center", "class_table", ZHU_2022, ref.affinity, sent.CENTERS),
        LossSpec("mva", "MVALoss", "center", "class_table", ZHU_2022, ref.mva, sent.MVA),
        LossSpec("nfd", "NFDLoss", "correlation", "ad_corre", FARD_2022, ref.nfd, sent.FEATURES),
        LossSpec("fd", "FDLoss", "correlation", "ad_corre", FARD_2022, ref.fd, sent.FEATURES),
        LossSpec("md", "MDLoss", "correlation", "ad_corre", FARD_2022, ref.md, sent.MEANS),
        LossSpec("ed", "EDLoss", "correlation", "ad_corre", FARD_2022, ref.ed, sent.EMBEDDINGS),
        LossSpec("ad-corre", "AdCorreLoss", "correlation", "ad_corre", FARD_2022, ref.ad_corre, sent.AD_CORRE),
        LossSpec("marginal", "MarginalLoss", "pairwise", "pairwise", PHAM_2023, ref.marginal, sent.MARGINAL),
        LossSpec("range", "RangeLoss", "pairwise", "range_loss", PHAM_2023, ref.range_loss, sent.RANGE),
        LossSpec("selfcon", "SelfConLoss", "contrastive", "contrastive", ZHU_2022, ref.selfcon, sent.CONTRASTIVE),
        LossSpec("supcon", "SupConLoss", "contrastive", "contrastive", ZHU_2022, ref.supcon, sent.CONTRASTIVE),
        LossSpec("esc", "ESCLoss", "contrastive", "contrastive", ZHU_2022, ref.esc, sent.CONTRASTIVE),
        LossSpec("ensc", "ENSCLoss", "contrastive", "contrastive", ZHU_2022, ref.ensc, sent.CONTRASTIVE),
    )
}

# What the public API calls the tensors to which formulas, and engines, give the symbols of the papers.
PUBLIC_NAMES = {
    "x": "features",
    "z": "embeddings",
    "e": "embeddings",
    "y": "labels",
    "bank_z": "bank_embeddings",
    "bank_y": "bank_labels",
}


def by_public_name(given: dict) -> dict:
    """Arguments by a formula's symbols as those of the loss's function: what is no symbol keeps its name."""
    return {PUBLIC_NAMES.get(name, name): value for name, value in given.items()}


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
