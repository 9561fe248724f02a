"""Inputs for every row of the registry, and the rule an answer must keep to: at most twice plain PyTorch's error."""

from contextlib import nullcontext

import torch
from torch import Tensor

from fer_fast import functional
from fer_fast.registry import LossSpec

NUM_EMBEDDINGS = 3


def make_inputs(
    spec: LossSpec, n: int, num_classes: int, d: int, dtype: torch.dtype, labels: str = "random", seed: int = 0
) -> tuple[dict[str, Tensor], dict]:
    """Tensors by argument name, and the other keywords, for a call of the row's function."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def classes(count: int) -> Tensor:
        drawn = torch.randint(num_classes, (count,), generator=generator)
        return {"random": drawn, "one": torch.full_like(drawn, num_classes - 1), "own": torch.arange(count)}[labels]

    x, y = normal(n, d), classes(n)
    table = normal(num_classes, d)
    if spec.family == "classifier":
        tensors = {"x": x, "y": y, "weight": table}
        if spec.name.endswith("softmax") and spec.cls == "SoftmaxLoss":
            tensors["bias"] = normal(num_classes)
        if spec.name == "weighted-softmax":
            tensors["class_weights"] = normal(num_classes).abs() + 0.1
        options = {}
    elif spec.family == "center":
        tensors, options = {"x": x, "y": y, "centers": table}, {"update": True}
        if spec.name == "weighted-cluster":
            tensors["class_weights"] = normal(num_classes).abs() + 0.1
        if spec.name == "mva":
            options["groups"] = [
                (normal(m, d).to(dtype), torch.randint(num_classes, (m,), generator=generator)) for m in (5, 2)
            ]
    elif spec.family == "correlation":
        tensors, options = {"e": normal(NUM_EMBEDDINGS, n, d), "y": y}, {}
        if spec.name in ("fd", "ad-corre"):
            tensors["class_difficulty"] = torch.rand(num_classes, generator=generator, dtype=torch.float64)
        elif spec.name != "ed":
            options["num_classes"] = num_classes
    elif spec.family == "pairwise":
        tensors, options = {"x": x, "y": y}, {}
    else:
        tensors, options = {"z": torch.nn.functional.normalize(x, dim=1), "y": y}, {}
        if spec.name in ("esc", "ensc"):
            bank = torch.nn.functional.normalize(normal(19, d), dim=1)
            bank_y = torch.randint(num_classes, (19,), generator=generator)
            bank_y[::6] = -1
            tensors |= {"bank_z": bank, "bank_y": bank_y}
    return {name: cast(name, t, dtype) for name, t in tensors.items()}, options


def cast(name: str, t: Tensor, dtype: torch.dtype) -> Tensor:
    """Features in `dtype`; tables (weights, centers) in float32 at least, as a module keeps them."""
    if not t.dtype.is_floating_point:
        return t
    return t.to(dtype if name in ("x", "e", "z", "bank_z") else torch.promote_types(dtype, torch.float32))


def double(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.double() if t.dtype.is_floating_point else t for name, t in tensors.items()}


def evaluate(spec: LossSpec, tensors: dict[str, Tensor], options: dict, **how) -> dict[str, Tensor]:
    """The loss, its gradients by argument name, and the moved centers."""
    tensors = {name: t.detach().clone() for name, t in tensors.items()}
    leaves = {name: tensors[name].requires_grad_() for name in ("x", "e", "z", "weight", "bias") if name in tensors}
    loss = getattr(functional, spec.function)(**tensors, **options, **how)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    result = {"loss": loss.detach()} | {f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}
    return result | ({"centers": tensors["centers"]} if "centers" in tensors else {})


def plain(spec: LossSpec, tensors: dict[str, Tensor], options: dict, **how) -> dict[str, Tensor]:
    """What plain PyTorch gives in the same precision: the reference, under autocast for half-precision features."""
    dtype = next(tensors[name].dtype for name in ("x", "e", "z") if name in tensors)
    half = dtype in (torch.float16, torch.bfloat16)
    with torch.autocast("cpu", dtype) if half else nullcontext():
        return evaluate(spec, tensors, options, backend="reference", **how)


def assert_within_budget(actual: dict, plain: dict, truth: dict) -> None:
    """Each result is at most twice as wrong as plain PyTorch against float64, plus one rounding of its dtype.

    Errors are norms over the whole tensor: single entries of plain PyTorch are right by luck.
    """
    assert actual.keys() == truth.keys()
    for name, exact in truth.items():
        got = actual[name]
        assert got.shape == exact.shape, name
        scale = exact.norm().item()
        budget = 2 * (plain[name].double() - exact).norm().item() + torch.finfo(got.dtype).eps * scale
        # Sums of terms far larger than their result cannot be more exact than the terms.
        error = (got.double() - exact).norm().item()
        assert error <= budget + 1e-30, f"{name}: error {error:.3g}, allowed {budget:.3g}, size {scale:.3g}"
