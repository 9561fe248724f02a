"""What the first call of a loss costs beyond itself: it imports no compiler, which takes seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_fast.dispatch import triton_runs_on

HELPERS = Path(__file__).parents[1] / "helpers"

A_CALL_OF_EVERYTHING = """
import sys
import torch

before = set(sys.modules)
backend = sys.argv[1]
import fer_fast
from cases import evaluate, make_inputs
from fer_fast import functional, losses
from fer_fast.compat import pml
from fer_fast.registry import LOSSES

for spec in LOSSES.values():
    evaluate(spec, *make_inputs(spec, 12, 4, 16, torch.float32), backend=backend)
x, y, centers = torch.randn(12, 16, requires_grad=True), torch.arange(12) % 4, torch.randn(4, 16)
primitives = (
    functional.correlation_matrix(x, backend=backend),
    functional.center_distances(x, centers, backend=backend),
    functional.anti_center_distances(x, y, centers, backend=backend),
    functional.contrastive_log_denominator(x, y, backend=backend),
)
sum(primitive.sum() for primitive in primitives).backward()
losses.MemoryBank(20, 16).enqueue(x.detach(), y)
with fer_fast.backend(backend):
    pml.CrossBatchMemory(pml.NTXentLoss(), 16)(x, y).backward()

new = {name for name in set(sys.modules) - before}
assert any(name.startswith("fer_fast.") for name in new)
print(*sorted(name for name in new if name.startswith(("torch._dynamo", "torch._inductor", "sympy"))))
"""


@pytest.mark.parametrize("backend", ["reference", "blocked", "triton"])
def test_no_compiler_is_imported(backend):
    if backend == "triton" and not triton_runs_on("cpu"):
        pytest.skip("needs Triton's interpreter")
    environment = os.environ | {"PYTHONPATH": str(HELPERS)}
    command = [sys.executable, "-c", A_CALL_OF_EVERYTHING, backend]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
