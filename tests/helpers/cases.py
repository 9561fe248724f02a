"""Inputs for every row of the registry, and the rule an answer must keep to: at most twice plain PyTorch's error."""

from contextlib import nullcontext

import torch
from torch import Tensor

from fer_fast import functional
from fer_fast.registry import LossSpec, by_public_name

NUM_EMBEDDINGS = 3
LEAVES = ("x", "e", "z", "weight", "bias", "s", "temperature")  # what gets a gradient


def make_inputs(
    spec: LossSpec, n: int, num_classes: int, d: int, dtype: torch.dtype, labels: str = "random", seed: int = 0
) -> tuple[dict[str, Tensor], dict]:
    """Tensors by their symbols in the row's formula, and the other keywords, for a call of it or of its function."""
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
    """The loss, its gradients by symbol, and the moved centers; losses of rows are pulled each its own way."""
    # Strides stay as given; what is written to in place is not the caller's.
    tensors = {name: t.detach().clone() if name == "centers" else t.detach() for name, t in tensors.items()}
    leaves = {name: tensors[name].requires_grad_() for name in LEAVES if name in tensors}
    loss = getattr(functional, spec.function)(**by_public_name(tensors), **options, **how)
    pull = torch.linspace(-1, 2, len(loss)).to(loss) if loss.ndim else None
    gradients = torch.autograd.grad(loss, list(leaves.values()), pull)
    result = {"loss": loss.detach()} | {f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}
    return result | ({"centers": tensors["centers"]} if "centers" in tensors else {})


def plain(spec: LossSpec, tensors: dict[str, Tensor], options: dict, **how) -> dict[str, Tensor]:
    """What plain PyTorch gives in the same precision: the reference, under autocast for half-precision features."""
    dtype = next(tensors[name].dtype for name in ("x", "e", "z") if name in tensors)
    half = dtype in (torch.float16, torch.bfloat16)
    with torch.autocast("cpu", dtype) if half else nullcontext():
        return evaluate(spec, tensors, options, backend="reference", **how)


def assert_within_budget(
    actual: list[dict], plain: list[dict], truth: list[dict], cancelling: dict | None = None
) -> None:
    """No result is more than twice as wrong as plain PyTorch is at worst, against float64, plus one rounding.

    Errors are norms over a tensor, one for each draw; `truth` and `plain` may hold more draws than `actual`, since a
    single number of plain PyTorch is often right by luck. `cancelling` gives, by name, the size of terms whose
    difference a result is; it may carry one rounding of those.
    """
    for name in truth[0]:
        exact = [draw[name] for draw in truth]
        worst = max((draw[name].double() - e).norm().item() for draw, e in zip(plain, exact, strict=True))
        dtype = actual[0][name].dtype
        # float64 is the truth itself: there a fast path has the rounding of its own order of summation.
        rounding = 1e-12 if dtype == torch.float64 else torch.finfo(dtype).eps
        for draw, e in zip(actual, exact, strict=False):
            assert draw[name].shape == e.shape, name
            size = max(e.norm().item(), (cancelling or {}).get(name, 0.0))
            error, budget = (draw[name].double() - e).norm().item(), 2 * worst + rounding * size
            assert error <= budget, f"{name}: error {error:.3g}, allowed {budget:.3g}, size {size:.3g}"
