"""What the tests of the Triton engines share: seeded numbers, and outputs poisoned before a kernel writes them."""

import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def poisoned_empty(*shape, **kwargs) -> Tensor:
    """`torch.empty` filled with what a kernel must not leave behind."""
    out = torch.empty(*shape, **kwargs)
    return out.fill_(torch.nan if out.is_floating_point() else torch.iinfo(out.dtype).max // 3)


def poison(monkeypatch, *modules) -> None:
    for module in modules:
        monkeypatch.setattr(module, "_empty", poisoned_empty)
