"""What the tests of the Triton engines share: seeded numbers, poisoned outputs, a check against the reference."""

from collections.abc import Callable

import torch
from fer_fast.bench.gpu.engines import poisoned_empty
from torch import Tensor

from cases import assert_within_budget
from fer_fast.blocked.tiles import gradient_dtype

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def poison(monkeypatch, *modules) -> None:
    """What their kernels leave unwritten is seen."""
    for module in modules:
        monkeypatch.setattr(module, "_empty", poisoned_empty)


def with_gradient(call: Callable, x: Tensor, grad: Tensor | None = None, autocast=None) -> dict[str, Tensor]:
    """A function's value and gradient by autograd, in the precision of x or under autocast."""
    x = x.clone().requires_grad_()
    with torch.autocast(DEVICE, dtype=autocast, enabled=autocast is not None):
        out = call(x)
    return {"out": out.detach(), "dx": torch.autograd.grad(out, x, None if grad is None else grad.to(out.dtype))[0]}


def check(call: Callable, fast: Callable, inputs: list[Tensor], grads: list[Tensor | None] | None = None) -> None:
    """`fast(x, grad)` gives (value, dx); `call(x)` is the reference."""
    half = inputs[0].dtype if inputs[0].dtype != torch.float32 else None
    cases = list(zip(inputs, grads or [None] * len(inputs), strict=True))
    truth = [with_gradient(call, x.double(), g) for x, g in cases]
    plain = [with_gradient(call, x, g, half) for x, g in cases]
    actual = [dict(zip(("out", "dx"), fast(x, g), strict=True)) for x, g in cases]
    given = [gradient_dtype(x) if grads is None else x.dtype for x in inputs]  # a loss's awaits the loss scale
    assert all(a["out"].dtype == torch.float32 for a in actual)
    assert [a["dx"].dtype for a in actual] == given
    assert_within_budget(actual, plain, truth)


def labels_of(n: int, classes: int) -> Tensor:
    return (torch.randint(classes, (n,), generator=torch.Generator().manual_seed(n)) * 2**33 + 7).to(DEVICE)


def rows(shape: tuple[int, ...], dtype=torch.float32, count: int = 3) -> list[Tensor]:
    return [normal(*shape, seed=seed).to(DEVICE, dtype) for seed in range(count)]
