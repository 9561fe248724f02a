"""The memory bank against a plain list: partial fill, wrap-around, batches larger than it, groups, state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fer_fast
from fer_fast import ops
from fer_fast.dispatch import triton_runs_on
from fer_fast.losses import ENSCLoss, MemoryBank

D = 3


def filled(capacity: int, sizes: list[int], dtype=torch.float32):
    """A bank and, oldest first, every row it was given; row r holds r in each entry and has label r."""
    bank, rows = MemoryBank(capacity, D, dtype), 0
    for size in sizes:
        labels = torch.arange(rows, rows + size)
        bank.enqueue(labels[:, None].expand(size, D).to(torch.float32), labels)
        rows += size
    return bank, list(range(rows))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(1, 15), max_size=8))
def test_holds_the_newest_rows(capacity, sizes):
    bank, rows = filled(capacity, sizes)
    expected = rows[-capacity:]
    assert len(bank) == len(expected) == len(bank.features) == len(bank.labels)
    assert sorted(bank.labels.tolist()) == expected
    assert torch.equal(bank.features, bank.labels[:, None].expand(-1, D).float())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(1, 15), max_size=8), st.integers(0, 5))
def test_groups_are_the_newest_whole_batches(capacity, sizes, count):
    bank, rows = filled(capacity, sizes)
    expected, end = [], len(rows)
    for size in reversed(sizes):
        kept = min(size, capacity)  # a batch larger than the bank leaves its last rows as one group
        if len(rows) - (end - kept) > capacity:
            break
        expected.append(rows[end - kept : end])
        end -= size
        if size > capacity:
            break
    groups = bank.groups(count)
    assert [labels.tolist() for _, labels in groups] == expected[:count]
    assert all(torch.equal(z[:, 0], labels.float()) for z, labels in groups)


@pytest.mark.skipif(not triton_runs_on("cpu"), reason="needs Triton's interpreter")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_kernel_leaves_the_same_bank(dtype):
    sizes = [3, 4, 1, 9, 7, 2]
    with fer_fast.backend("triton"):
        bank, _ = filled(7, sizes, dtype)
    expected, _ = filled(7, sizes, dtype)
    for name, value in expected.state_dict().items():
        assert torch.equal(bank.state_dict()[name], value), name
    assert bank.cursor.item() == expected.cursor.item() == (3 + 4 + 1 + 7 + 7 + 2) % 7
    assert [y.tolist() for _, y in bank.groups(3)] == [y.tolist() for _, y in expected.groups(3)]


@pytest.mark.skipif(not triton_runs_on("cpu"), reason="needs Triton's interpreter")
def test_a_replayed_graph_moves_on():
    bank, _ = filled(5, [5])
    z = torch.zeros(2, D)
    for label in (7, 8, 9):  # what a captured graph does: the kernel again, and nothing on the host
        ops.enqueue(bank.ring, bank.ring_labels, bank.cursor, z.fill_(label), torch.full((2,), label))
        bank.replayed(2)  # unless it is told
    assert bank.ring_labels.tolist() == [9, 7, 8, 8, 9]
    assert [y.tolist() for _, y in bank.groups(9)] == [[9, 9], [8, 8]]
    assert bank.replay_key == (5, 2, 2)
    other = MemoryBank(5, D)
    other.load_state_dict(bank.state_dict())
    other.enqueue(z[:1], torch.tensor([4]))
    assert other.ring_labels.tolist() == [9, 4, 8, 8, 9]


def test_opcheck_of_enqueue():
    if not triton_runs_on("cpu"):
        pytest.skip("needs Triton's interpreter")
    bank, _ = filled(5, [3])
    rows = torch.randn(2, D), torch.tensor([1, 2])
    report = torch.library.opcheck(
        torch.ops.fer_fast.enqueue.default, (bank.ring, bank.ring_labels, bank.cursor, *rows)
    )
    assert set(report.values()) == {"SUCCESS"}


def test_whoever_saved_the_old_rows_for_a_backward_is_told():
    if not triton_runs_on("cpu"):
        pytest.skip("needs Triton's interpreter")
    bank, _ = filled(5, [3])
    kept = (torch.ones(5, D, requires_grad=True) * bank.ring).sum()
    ops.enqueue(bank.ring, bank.ring_labels, bank.cursor, torch.ones(2, D), torch.tensor([1, 2]))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept.backward()


def test_state_survives(tmp_path):
    bank, _ = filled(5, [3, 4], torch.bfloat16)
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    other = MemoryBank(5, D, torch.bfloat16)
    other.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True))
    for each in (bank, other):
        each.enqueue(torch.full((1, D), 9.0), torch.tensor([9]))
    assert torch.equal(bank.ring, other.ring)
    assert torch.equal(bank.ring_labels, other.ring_labels)
    assert [y.tolist() for _, y in bank.groups(9)] == [y.tolist() for _, y in other.groups(9)] == [[9], [3, 4, 5, 6]]
    with pytest.raises(RuntimeError, match="host_state"):
        other.load_state_dict({name: t for name, t in bank.state_dict().items() if name != "host_state"})


def test_rows_not_filled_take_part_in_nothing():
    torch.manual_seed(0)
    z, y = torch.nn.functional.normalize(torch.randn(6, D), dim=1), torch.tensor([0, 0, 1, 1, 2, 2])
    rows = torch.nn.functional.normalize(torch.randn(4, D), dim=1)
    small, large = MemoryBank(4, D), MemoryBank(100, D)
    for bank in (small, large):
        bank.enqueue(rows, torch.tensor([0, 1, 2, 3]))
    loss = ENSCLoss()
    torch.testing.assert_close(loss(z, y, bank=small), loss(z, y, bank=large))
    whole_ring = loss(z, y, ref_emb=large.ring, ref_labels=large.ring_labels)
    torch.testing.assert_close(whole_ring, loss(z, y, bank=small))
    assert loss(z, y, bank=MemoryBank(4, D)) == loss(z, y)


def test_bank_gets_no_gradient_and_bad_rows_are_refused():
    bank = MemoryBank(8, D)
    z = torch.randn(2, D, requires_grad=True)
    bank.enqueue(z, torch.tensor([0, 1]))
    assert not bank.features.requires_grad
    with pytest.raises(ValueError, match=r"embeddings: expected \(C, 3\)|to match"):
        bank.enqueue(torch.randn(2, D + 1), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="labels: expected shape"):
        bank.enqueue(torch.randn(2, D), torch.tensor([0]))
    with pytest.raises(ValueError, match="give one of the two"):
        ENSCLoss()(z, torch.tensor([0, 1]), bank=bank, ref_emb=bank.features, ref_labels=bank.labels)
