"""What the tests of the class-table and Ad-Corre kernels share: the budget, poisoned outputs, the reference by name."""

from typing import get_type_hints

import torch
from torch import Tensor

from fer_fast import reference
from fer_fast.functional import Term
from fer_fast.registry import LOSSES

INTERPRETED = not torch.cuda.is_available()
DEVICE = "cpu" if INTERPRETED else "cuda"
# The interpreter multiplies bfloat16 as raw bits.
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])


_empty = torch.empty  # which a test may replace


def engine_params(loss: str, **given) -> tuple[float, ...]:
    """The row's hyper-parameters as the engine takes them, defaults but for those given."""
    return Term(loss, params=LOSSES[loss].params(**given)).engine_params()


CLASSIFIERS = {name: engine_params(name) for name, spec in LOSSES.items() if spec.family == "classifier"}
CLASSIFIERS |= {"weighted": CLASSIFIERS.pop("weighted-softmax"), "l-softmax": engine_params("l-softmax", m=3)}
AUXILIARIES = {
    **{name: engine_params(name) for name, spec in LOSSES.items() if spec.family == "center"},
    "variant-paper": engine_params("variant", feature_gradient="paper"),
}


def poisoned(*shape, **kwargs) -> Tensor:
    """In place of torch.empty: what a kernel leaves unwritten is seen."""
    dtype = kwargs["dtype"]
    return _empty(*shape, **kwargs).fill_(float("nan") if dtype.is_floating_point else torch.iinfo(dtype).min)


def errors(got: dict[str, Tensor], plain: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, tuple]:
    """Results beyond twice plain PyTorch's error plus one rounding of their dtype, in norm: (error, allowed)."""
    beyond = {}
    for name, exact in truth.items():
        value = got[name]
        assert value.shape == exact.shape, name
        rounding = torch.finfo(value.dtype).eps * exact.norm().item()
        allowed = 2 * (plain[name].double() - exact).norm().item() + rounding
        error = (value.double() - exact).norm().item()
        if not error <= allowed + 1e-30:
            beyond[name] = (error, allowed)
    return beyond


def classifier_loss(name: str, x: Tensor, t: dict, reduction: str) -> Tensor:
    given = {"y": t["y"], "weight": t["weight"], "reduction": reduction}
    if name in ("softmax", "weighted"):
        weights = t["class_weights"] if name == "weighted" else None
        return reference.softmax(x, bias=t["bias"], class_weights=weights, **given)
    spec = LOSSES[name]
    types = get_type_hints(spec.params)
    params = {
        field: int(value) if types[field] is int else value
        for field, value in zip(types, CLASSIFIERS[name], strict=True)
    }
    return spec.reference(x, **given, **params)


def auxiliary_loss(name: str, x: Tensor, t: dict, reduction: str) -> tuple[Tensor, Tensor]:
    """The loss and the moved centers."""
    y, c = t["y"], t["centers"]
    rows = x.detach()
    match name:
        case "center":
            return reference.center(x, y, c, reduction), reference.center_update(rows, y, c)
        case "island":
            return reference.island(x, y, c, reduction=reduction), reference.island_update(rows, y, c)
        case "variant" | "variant-paper":
            how = "paper" if name.endswith("paper") else "exact"
            loss = reference.variant(x, y, c, feature_gradient=how, reduction=reduction)
            return loss, reference.variant_update(rows, y, c)
        case "weighted-cluster":
            weights = t["center_weights"]
            loss = reference.weighted_cluster(x, y, c, weights, reduction=reduction)
            return loss, reference.weighted_cluster_update(rows, y, c, weights)
        case "affinity":
            return reference.affinity(x, y, c, reduction), reference.center_update(rows, y, c)
        case "mva":
            return reference.mva(x, y, c, t["groups"], reduction), reference.center_update(rows, y, c)
    raise KeyError(name)


def double(t: dict) -> dict:
    """The same inputs in float64."""
    groups = [(x.double(), y) for x, y in t["groups"]]
    return {k: v.double() if k != "groups" and v.dtype.is_floating_point else v for k, v in t.items()} | {
        "groups": groups
    }


def expected(classifier: str, auxiliary: str, t: dict, scale: float, reduction: str) -> dict[str, Tensor]:
    """Loss, gradients and moved centers of the reference, in the precision of the inputs."""
    leaves = {name: t[name].detach().clone().requires_grad_() for name in ("x", "weight", "bias")}
    t = t | leaves
    loss, moved = 0, t["centers"]
    if classifier:
        loss = classifier_loss(classifier, t["x"], t, reduction)
    if auxiliary:
        part, moved = auxiliary_loss(auxiliary, t["x"], t, reduction)
        loss = loss + scale * part
    loss.backward()
    result = {"loss": loss.detach(), "centers": moved.detach()}
    return result | {f"d{name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def inputs(n: int, num_classes: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict:
    """Features in `dtype`, tables in float32, as modules keep them."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    def labels(count: int) -> Tensor:
        return torch.randint(num_classes, (count,), generator=g).to(DEVICE)

    t = {"x": normal(n, d).to(dtype), "weight": normal(num_classes, d), "bias": normal(num_classes)}
    t |= {"centers": normal(num_classes, d)}
    t |= {name: normal(num_classes).abs() + 0.1 for name in ("class_weights", "center_weights")}
    t = {name: value.to(DEVICE) for name, value in t.items()}
    groups = [(normal(m, d).to(DEVICE, dtype), labels(m)) for m in (5, 2)]
    return t | {"y": labels(n), "groups": groups}


def along_class_weights(t: dict) -> dict:
    """Inputs with rows along the weights of their classes, which are all the same: cosines of 1, less a rounding."""
    weight, lengths = t["weight"][:1].expand_as(t["weight"]).contiguous(), torch.arange(1, len(t["x"]) + 1)
    return t | {"weight": weight, "x": (weight[t["y"]] * lengths.to(weight)[:, None]).to(t["x"].dtype)}
