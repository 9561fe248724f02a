"""Other people's packages, each called the way its documentation says, on the same inputs."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .contenders import OTHERS_SLACK, Contender, Step, autocast_for, installed, step, too_large
from .problems import Inputs, Problem

PML = "pytorch-metric-learning"
LIGER = "liger-kernel"
INF_CL = "inf-cl"


def _pairs(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(anchor, positive, anchor, negative) index lists, the form the package takes pairs in, from the labels.

    Negatives are all keys that stand in the denominator without being positives. CrossBatchMemory builds such lists
    in every step too, so this is part of what is timed.
    """
    y, bank_y = inputs.tensors["y"], inputs.tensors.get("bank_y")
    n = len(y)
    same = y[:, None] == y
    positive = same & ~torch.eye(n, dtype=torch.bool, device=y.device)
    negative = ~same if bank_y is None else torch.cat([~same, inputs.options["keeps"](y, bank_y)], 1)
    return *positive.nonzero(as_tuple=True), *negative.nonzero(as_tuple=True)


def _pml_supcon(problem: Problem, inputs: Inputs) -> Step:
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import SupConLoss

    # Rows come normalised; its default would normalise again, which is another function of z.
    loss = SupConLoss(**problem.spec.params()._asdict(), distance=DotProductSimilarity(normalize_embeddings=False))
    z, y = inputs.tensors["z"], inputs.tensors["y"]
    if problem.loss == "selfcon":
        y = torch.arange(len(z) // 2, device=z.device).repeat(2)
    return step(lambda: loss(z, y), inputs)


def _pml_bank(problem: Problem, inputs: Inputs) -> Step:
    """SupConLoss with the batch and the bank as reference embeddings, as CrossBatchMemory calls it.

    The pairs it is given make it ESC (every bank row a key) or ENSC (bank rows of other classes).
    """
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import SupConLoss

    loss = SupConLoss(**problem.spec.params()._asdict(), distance=DotProductSimilarity(normalize_embeddings=False))
    z, y, bank_z, bank_y = (inputs.tensors[name] for name in ("z", "y", "bank_z", "bank_y"))
    keeps = {
        "esc": lambda y, bank_y: torch.ones(len(y), len(bank_y), dtype=torch.bool, device=y.device),
        "ensc": lambda y, bank_y: y[:, None] != bank_y,
    }[problem.loss]
    chosen = Inputs(inputs.tensors, {"keeps": keeps})
    keys_y = torch.cat([y, bank_y])
    return step(lambda: loss(z, y, _pairs(chosen), torch.cat([z, bank_z]), keys_y), inputs)


def _pml_classifier(problem: Problem, inputs: Inputs) -> Step:
    from pytorch_metric_learning import losses

    s, p = problem.shape, problem.spec.params()
    x, y, weight = (inputs.tensors[name] for name in ("x", "y", "weight"))
    loss = {
        "lmcl": lambda: losses.CosFaceLoss(s.classes, s.d, margin=p.m, scale=p.s),
        "arcface": lambda: losses.ArcFaceLoss(s.classes, s.d, margin=math.degrees(p.m), scale=p.s),
        "a-softmax": lambda: losses.SphereFaceLoss(s.classes, s.d, margin=p.m, scale=1),
        "l-softmax": lambda: losses.LargeMarginSoftmaxLoss(s.classes, s.d, margin=p.m, scale=1),
    }[problem.loss]().to(x.device)
    own = loss.W = torch.nn.Parameter(weight.detach().t().contiguous())  # (d, C), as the package keeps it

    def run() -> dict[str, Tensor]:
        value = loss(x, y)
        dx, dw = torch.autograd.grad(value, (x, own))
        return {"loss": value.detach(), "dx": dx, "dweight": dw.t()}

    return run


def _pml(problem: Problem, inputs: Inputs) -> Step:
    if problem.loss in ("supcon", "selfcon"):
        return _pml_supcon(problem, inputs)
    return _pml_bank(problem, inputs) if "bank_z" in inputs.tensors else _pml_classifier(problem, inputs)


def _torch_linear(problem: Problem, inputs: Inputs) -> Step:
    t, autocast = inputs.tensors, autocast_for(problem, inputs)
    given = {"linear_bias": t["bias"], "weight": t.get("class_weights")}

    def loss() -> Tensor:
        with autocast:
            return F.linear_cross_entropy(t["x"], t["weight"], t["y"], **given)

    return step(loss, inputs)


def _liger(problem: Problem, inputs: Inputs) -> Step:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    t, autocast = inputs.tensors, autocast_for(problem, inputs)
    fused = LigerFusedLinearCrossEntropyLoss(ce_weight=t.get("class_weights"))

    def loss() -> Tensor:
        with autocast:
            return fused(t["weight"], t["x"], t["y"], t["bias"])

    return step(loss, inputs)


def _needs(package: str, gpu: bool = False) -> Callable[[torch.device], str]:
    """Why a package cannot run on a device: it, or the GPU it needs, is not there."""

    def unavailable(device: torch.device) -> str:
        if installed(package) is None:
            return "not installed"
        return "needs a GPU" if gpu and device.type != "cuda" else ""

    return unavailable


def _torch_lacks(device: torch.device) -> str:
    return "" if hasattr(F, "linear_cross_entropy") else f"not in torch {torch.__version__}"


_SAME_IN_PML = ("lmcl", "arcface", "a-softmax", "l-softmax", "supcon", "selfcon", "esc", "ensc")
PEERS = (
    Contender(
        PML,
        _pml,
        offers=lambda problem: problem.loss in _SAME_IN_PML,
        unavailable=_needs(PML),
        refuses=too_large,
        package=PML,
        slack=OTHERS_SLACK,
        missing="no center family, correlation losses or range loss; its MarginLoss learns a border per class "
        "and is not the marginal loss; A- and L-softmax are without the blend λ",
    ),
    Contender(
        "linear_cross_entropy",
        _torch_linear,
        offers=lambda problem: problem.spec.cls == "SoftmaxLoss",
        unavailable=_torch_lacks,
        package="torch",
        slack=OTHERS_SLACK,
        missing="plain and weighted softmax only",
    ),
    Contender(
        LIGER,
        _liger,
        offers=lambda problem: problem.spec.cls == "SoftmaxLoss",
        unavailable=_needs(LIGER, gpu=True),
        package=LIGER,
        slack=OTHERS_SLACK,
        missing="plain and weighted softmax only",
    ),
    Contender(
        INF_CL,
        bind=None,
        offers=lambda problem: False,
        unavailable=_needs(INF_CL, gpu=True),
        package=INF_CL,
        missing="one positive a row, from the other modality, and no keys of the row's own: none of SelfCon, SupCon, "
        "ESC, ENSC",
    ),
)
