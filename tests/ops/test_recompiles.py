"""State that changes from step to step is a tensor: a training loop is compiled once, and again for a ragged batch."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from fer_fast import losses
from fer_fast.registry import available
from loss_modules import C, D, batch, build

STEPS, WHOLE, RAGGED = 50, 8, 6
MOST = 3  # the first; for a ragged batch, of any size from then on; for one number more that settles at once


def steps():
    """How many rows each of the steps of a loop has: every epoch's last batch is ragged."""
    return [(RAGGED if step % 5 == 4 else WHOLE) - 2 * (step == 49) for step in range(STEPS)]


def compilations(step, given) -> int:
    """How often `step` is compiled in the loop; `given` are a batch's arguments by its number and rows."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    run = torch.compile(step, fullgraph=True, backend=counter)
    for number, rows in enumerate(steps()):
        run(*given(number, rows)).backward()
    return counter.frame_count


@pytest.mark.parametrize("spec", available(), ids=lambda spec: spec.name)
def test_every_loss_in_training(spec):
    loss = build(spec, backend="blocked").train()

    def given(number, rows):
        x, y = batch(spec, seed=number, n=rows)
        return x.requires_grad_(), y

    assert compilations(loss, given) <= MOST


def unit_rows(number, rows):
    torch.manual_seed(number)
    return torch.nn.functional.normalize(torch.randn(rows, D), dim=1).requires_grad_(), torch.arange(rows) % C


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("loss", [losses.ESCLoss(), losses.ENSCLoss(), losses.MVALoss(C, D)])
def test_a_bank_that_fills_inside_the_graph(loss, own):
    if own and isinstance(loss, losses.MVALoss):
        pytest.skip("takes none")
    bank, eager = losses.MemoryBank(300, D), losses.MemoryBank(300, D)

    def step(z, y, into=bank):
        if own:
            into.enqueue(z.detach(), y)
            return loss(z, y, into, own=True)
        value = loss(z, y, into)
        into.enqueue(z.detach(), y)
        return value

    assert compilations(step, unit_rows) <= MOST
    for number, rows in enumerate(steps()):
        eager.enqueue(*unit_rows(number, rows))
    for name, tensor in eager.state_dict().items():
        assert torch.equal(bank.state_dict()[name], tensor), name
    assert len(bank) == 300 < sum(steps())


def test_a_bank_that_fills_beside_the_graph():
    loss, bank = losses.MVALoss(C, D), losses.MemoryBank(300, D)

    def given(number, rows):
        if number:
            bank.enqueue(*unit_rows(number - 1, rows))
        return *unit_rows(number, rows), bank

    assert compilations(loss, given) <= MOST
