"""What the engine launches, to compile ahead of time: every loss at representative widths, as the launcher says."""

from collections.abc import Iterator
from itertools import product

import torch

from fer_fast.terms import CenterTerm

from ..class_table.centers import CENTERS
from ..host.aot import TYPES, launch_case
from ..host.launch import Launch
from .launch import large_centers

_WIDTHS = (512, 2048, 4096)


def aot_cases(family: str) -> Iterator[tuple]:
    """Every kernel of a training step of every loss."""
    for name, d, (dtype, of) in product(CENTERS, _WIDTHS, TYPES.items()):
        usual = name in ("center", "variant") and of == "bf16" and d != 2048
        for launch in _launches(name, d, dtype):
            case = f"{launch.kernel.__name__}-{name}-{of}-{d}{'*' if usual else ''}"
            yield launch_case(case, launch)


def _launches(name: str, d: int, dtype: torch.dtype) -> list[Launch]:
    """The launches of a training step on tensors without memory: threads of a computation would hang a fork."""
    params = (1.0 if isinstance(value, str) else value for value in CENTERS[name][1]())
    x, y = torch.empty((64, d), dtype=dtype, device="meta"), torch.empty(64, dtype=torch.int64, device="meta")
    centers, launches = torch.empty((100, d), device="meta"), {}
    weights = centers[:, 0].contiguous() if name == "weighted-cluster" else None
    groups = int(name == "mva")
    term = CenterTerm(name, centers, weights, tuple(params), groups_x=[x] * groups, groups_y=[y] * groups)
    large_centers(x, y, term, None, "mean", True, True, y, lambda launch: launches.update({launch.kernel: launch}))
    return list(launches.values())
