"""What the kernels move, multiply, launch and take of a chip, held to their limits in CI."""

import pytest

from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES

if not triton_runs_on("cpu"):
    pytest.skip("the audit needs Triton's interpreter", allow_module_level=True)

from fer_fast.bench import audit


@pytest.fixture(scope="module")
def counted():
    return {(row.loss, row.dtype, row.width): row for row in audit.every_traffic(LOSSES)}


def test_no_loss_moves_or_multiplies_more_than_it_may(counted):
    assert {loss for loss, *_ in counted} == LOSSES.keys()
    assert [row for row in counted.values() if row.over] == []


@pytest.mark.parametrize(("dtype", "width"), [("float32", 64), ("float32", 512), ("float16", 512), ("float16", 1024)])
@pytest.mark.parametrize("loss", [name for name, spec in LOSSES.items() if spec.family in ("classifier", "center")])
def test_one_launch_gives_loss_gradients_and_centers(counted, loss, dtype, width):
    launches = dict(counted[loss, dtype, width].launches)
    assert launches.pop("scale_gradients") == 1  # the backward
    assert launches == {"small": 1}


def test_a_backward_from_one_moves_nothing(counted):
    for row in counted.values():
        waits = row.dtype == "float16"  # in float32: to be read and written again whatever the factor is
        assert (row.scaled_bytes == row.bytes) == waits


def test_a_second_pass_is_noticed():
    limits = {"dtype": "float32", "width": 64, "bytes_allowed": 546, "scaled_bytes_allowed": 1084}
    limits |= {"operations_allowed": 10, "launches": {}}
    assert not audit.TrafficRow("softmax", bytes=520, scaled_bytes=1032, operations=10, **limits).over
    assert audit.TrafficRow("softmax", bytes=2 * 520, scaled_bytes=1032, operations=10, **limits).over
    assert audit.TrafficRow("softmax", bytes=520, scaled_bytes=2 * 1032, operations=10, **limits).over
    assert audit.TrafficRow("softmax", bytes=520, scaled_bytes=1032, operations=11, **limits).over
