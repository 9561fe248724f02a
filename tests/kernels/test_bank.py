"""The bank's ring in Triton against slots written one by one."""

import pytest
import torch
from fer_fast.kernels.bank.launch import enqueue

from fer_fast.dispatch import triton_runs_on
from triton_hostile import DEVICE, normal

pytestmark = pytest.mark.skipif(not triton_runs_on(DEVICE), reason="Triton does not run here")


@pytest.mark.parametrize("capacity", [1, 37])
def test_enqueue_is_a_ring(capacity):
    features = torch.zeros(capacity, 5, dtype=torch.float16, device=DEVICE)
    labels = torch.full((capacity,), -1, device=DEVICE)
    starts, written = torch.full((capacity,), -1, device=DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE)
    expected, expected_labels, expected_starts, rows = features.clone(), labels.clone(), starts.clone(), 0
    for n in (10, 30, 80, 1, 37, 36):  # 80: larger than the ring
        z, y = normal(n, 10, seed=n).float().to(DEVICE)[:, ::2], torch.arange(n, device=DEVICE) * 2**40
        enqueue(features, labels, starts, written, z, y)
        slots = (rows + torch.arange(n)) % capacity
        for i, slot in enumerate(slots.tolist()):
            expected[slot], expected_labels[slot] = z[i].half(), y[i]
            expected_starts[slot] = rows + max(n - capacity, 0)
        rows += n
        assert torch.equal(features, expected)
        assert torch.equal(labels, expected_labels)
        assert torch.equal(starts, expected_starts)
        assert written.item() == rows
