"""Classifiers of 65 to 100 000 classes in tiles of their real size, nine rows in ten of one class."""

import pytest
import torch
from torch import Tensor

from blocked_cases import CLASSIFIERS, DRAWS, by_autograd, held_to_reference, run_class_table

ROWS, WIDTH = 40, 16


def skewed(num_classes: int, seed: int) -> dict[str, Tensor]:
    """The last class has most rows, another weighs nothing."""
    generator = torch.Generator().manual_seed(seed)
    x, weight = (torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) for n in (ROWS, num_classes))
    y = torch.randint(num_classes, (ROWS,), generator=generator)
    y[ROWS // 10 :] = num_classes - 1
    class_weights = torch.rand(num_classes, generator=generator, dtype=torch.float64).index_fill(0, y[:1], 0)
    return {"x": x, "y": y, "weight": weight, "bias": weight[:, 0].clone(), "class_weights": class_weights}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_classes", [65, 1000, 100_000])
@pytest.mark.parametrize("classifier", [name for name in CLASSIFIERS if name])
def test_many_classes(classifier, num_classes, dtype):
    leaves = ("x", "weight", "bias") if classifier == "softmax" else ("x", "weight")
    held_to_reference(
        lambda t: run_class_table(t | {"centers": t["weight"]}, classifier, "", True),
        lambda t: by_autograd(lambda t: CLASSIFIERS[classifier][1](t, reduction="mean"), t, leaves),
        [skewed(num_classes, seed) for seed in range(DRAWS)],
        dtype,
    )
