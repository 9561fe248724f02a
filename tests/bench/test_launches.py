"""Every loss through Triton's own launch path, for a chip this machine does not have: what the interpreter cannot see.

A launch compiles for the values of its arguments too: an integer 1 becomes a constant of the kernel.
"""

from pathlib import Path

import pytest

from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES

if not triton_runs_on("cpu"):
    pytest.skip("launches need Triton", allow_module_level=True)

from fer_fast.bench import launches
from fer_fast.bench.child import lines
from fer_fast.bench.command import run
from fer_fast.bench.problems import Shape

# One class, one row, one column, one embedding, one row of the bank; and then some of each.
EDGES = [
    Shape(n=2, d=1, classes=1, k=1, bank=1),
    Shape(n=1, d=16, classes=1, k=1, bank=1),
    Shape(n=1, d=7, classes=7, k=2, bank=3),
]
# Linear engines visit rows as they come: the last batch of an epoch is as long as it is.
RAGGED = [Shape(n=64, d=32, classes=7, k=3), Shape(n=37, d=32, classes=7, k=3), Shape(n=1, d=32, classes=7, k=3)]


@pytest.mark.parametrize("engine", ["class_table", "ad_corre", "pairwise", "range_loss", "contrastive"])
def test_every_loss_compiles_for_the_smallest_inputs(engine):
    losses = [name for name, spec in LOSSES.items() if spec.engine == engine]
    rows = launches.rows(losses, EDGES)
    assert [row.loss for row in rows] == [loss for loss in losses for _ in EDGES]
    assert all(row.launches for row in rows)


@pytest.mark.parametrize("engine", ["class_table", "ad_corre", "pairwise", "range_loss", "contrastive"])
def test_every_loss_compiles_for_int32_labels(engine):
    losses = [name for name, spec in LOSSES.items() if spec.engine == engine]
    rows = launches.rows(losses, EDGES[-1:], labels="int32")
    assert [row.loss for row in rows] == losses


@pytest.mark.parametrize("loss", ["variant", "weighted-softmax", "ad-corre", "marginal"])
def test_a_batch_of_another_length_compiles_nothing_again(loss):
    first, *others = launches.rows([loss], RAGGED)
    assert first.compiled == len(first.launches)
    assert [(row.compiled, row.launches) for row in others] == [(0, first.launches)] * 2


def test_triton_is_asked_once_a_kind_of_call():
    # It looks at every argument again, which takes longer than all else that a launch takes.
    rows = lines("started_again", TRITON_INTERPRET="0", PYTHONPATH=str(Path(__file__).parents[1] / "helpers"))
    assert rows == [{"loss": loss, "asked": [], "changed": []} for loss in LOSSES]


def test_the_hosts_part_of_a_step_is_printed(capsys):
    assert run(["launches", "--loss", "center"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "center" in line)
    assert " 2 │" in line  # the loss with its gradients, and the backward
    assert "µs" in line
