"""Kernels of class tables and of Ad-Corre whose sums go round, in Triton's interpreter, beside float64."""

import pytest
import torch
import torch.distributed as dist

from fer_fast.functional import lmcl_loss
from shared_cases import Case, alone, on_process

FLOAT32 = {"backend": "triton", "dtype": torch.float32}
CASES = [
    Case("weighted-softmax", **FLOAT32),
    Case("a-softmax", "none", weighted=True, **FLOAT32),
    Case("lmcl", options=(("s", torch.nn.Parameter(torch.tensor(7.0))),), **FLOAT32),
    Case("lmcl", classes=40, weighted=True, **FLOAT32),  # more than a program holds
    Case("softmax", "none", classes=40, **FLOAT32),
    Case("variant", **FLOAT32),
    Case("center", "none", **FLOAT32),
    Case("island", weighted=True, **FLOAT32),
    Case("softmax+weighted-cluster", "sum", gradients="sum", **FLOAT32),
    Case("weighted-softmax+center", weighted=True, **FLOAT32),  # two means, which divide by two numbers
    Case("lmcl+mva", **FLOAT32),  # whose groups the blocked engine takes
    Case("nfd", "sum", **FLOAT32),
    Case("ed", weighted=True, **FLOAT32),
    Case("ed", "none", **FLOAT32),
    Case("ad-corre", **FLOAT32),
    Case("softmax+variant", backend="triton", dtype=torch.float16),
    Case("ad-corre", backend="triton", dtype=torch.float16),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_over_processes(four, case):
    exact = alone(case._replace(backend="reference", dtype=torch.float64), four.size)
    limit = 2e-5 if case.dtype == torch.float32 else 3e-2
    for rank, (share,) in enumerate(four.run(on_process, [case])):
        for name, expected in exact[rank].items():
            assert share[name].shape == expected.shape
            if expected.numel():
                error = (share[name].double() - expected.double()).abs().max() / expected.double().abs().max()
                assert error < limit, f"rank {rank}, {name}"


def of_double_weights() -> torch.Tensor:
    """The loss of float32 features by class weights in float64, which kernels do not take."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 6, generator=generator), torch.arange(8)
    own = slice(0, 0 if dist.get_rank() == 1 else 8)
    weight = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    return lmcl_loss(x[own], y[own], weight, backend="triton", process_group=dist.group.WORLD)


def test_a_process_without_rows_refuses_what_others_do(four):
    first, *others = four.run(of_double_weights)
    assert first.isfinite()
    assert all(torch.equal(loss, first) for loss in others)
