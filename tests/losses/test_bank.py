"""The memory bank against a plain list: partial fill, wrap-around, batches larger than it, groups, state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import fer_fast
from fer_fast import ops
from fer_fast.dispatch import triton_runs_on
from fer_fast.losses import ENSCLoss, ESCLoss, MemoryBank, MVALoss

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


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(1, 15), max_size=8), st.integers(0, 5))
def test_padded_groups_are_the_groups(capacity, sizes, count):
    bank, _ = filled(capacity, sizes)
    expected, padded = bank.groups(count), bank.padded_groups(count)
    if not count or not sizes:
        assert padded is None
        return
    features, labels, rows = padded
    assert rows.tolist() == [len(y) for _, y in expected] + [0] * (count - len(expected))
    for (z, y), z_of, y_of in zip(expected, features, labels, strict=False):
        assert torch.equal(z_of[: len(y)], z)
        assert torch.equal(y_of, torch.nn.functional.pad(y, (0, len(y_of) - len(y))))


@pytest.mark.skipif(not triton_runs_on("cpu"), reason="needs Triton's interpreter")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_kernel_leaves_the_same_bank(dtype):
    sizes = [3, 4, 1, 9, 7, 2]
    with fer_fast.backend("triton"):
        bank, _ = filled(7, sizes, dtype)
    expected, _ = filled(7, sizes, dtype)
    for name, value in expected.state_dict().items():
        assert torch.equal(bank.state_dict()[name], value), name
    assert bank.written.item() == 3 + 4 + 1 + 7 + 7 + 2
    assert [y.tolist() for _, y in bank.groups(3)] == [y.tolist() for _, y in expected.groups(3)]


@pytest.mark.skipif(not triton_runs_on("cpu"), reason="needs Triton's interpreter")
def test_a_replayed_graph_moves_on():
    bank, _ = filled(5, [5])
    z = torch.zeros(2, D)
    for label in (7, 8, 9):  # what a captured graph does: the kernel again, and nothing on the host
        ops.enqueue(
            bank.ring, bank.ring_labels, bank.ring_starts, bank.written, z.fill_(label), torch.full((2,), label)
        )
    assert bank.ring_labels.tolist() == [9, 7, 8, 8, 9]
    assert [y.tolist() for _, y in bank.groups(9)] == [[9, 9], [8, 8]]
    assert bank.padded_groups(3)[2].tolist() == [2, 2, 0]
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
        torch.ops.fer_fast.enqueue.default, (bank.ring, bank.ring_labels, bank.ring_starts, bank.written, *rows)
    )
    assert set(report.values()) == {"SUCCESS"}


def test_whoever_saved_the_old_rows_for_a_backward_is_told():
    if not triton_runs_on("cpu"):
        pytest.skip("needs Triton's interpreter")
    bank, _ = filled(5, [3])
    kept = (torch.ones(5, D, requires_grad=True) * bank.ring).sum()
    state = bank.ring, bank.ring_labels, bank.ring_starts, bank.written
    ops.enqueue(*state, torch.ones(2, D), torch.tensor([1, 2]))
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
    assert all(map(torch.equal, bank.padded_groups(3), other.padded_groups(3)))
    with pytest.raises(RuntimeError, match="written"):
        other.load_state_dict({name: t for name, t in bank.state_dict().items() if name != "written"})


def test_rows_not_filled_take_part_in_nothing():
    torch.manual_seed(0)
    z, y = torch.nn.functional.normalize(torch.randn(6, D), dim=1), torch.tensor([0, 0, 1, 1, 2, 2])
    rows = torch.nn.functional.normalize(torch.randn(4, D), dim=1)
    small, large = MemoryBank(4, D), MemoryBank(100, D)
    for bank in (small, large):
        bank.enqueue(rows, torch.tensor([0, 1, 2, 3]))
    loss = ENSCLoss()
    torch.testing.assert_close(loss(z, y, bank=small), loss(z, y, bank=large))
    valid = loss(z, y, ref_emb=large.features, ref_labels=large.labels)
    torch.testing.assert_close(valid, loss(z, y, bank=large))
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


def state_of(module: torch.nn.Module) -> dict:
    return {name: t.clone() for name, t in module.state_dict().items()}


SPOILT = {
    "other capacity": (lambda s: s | {"ring": s["ring"][:4], "ring_labels": s["ring_labels"][:4]}, "ring: shape"),
    "one tensor": (lambda s: s | {"ring_labels": s["ring_labels"][:4]}, "ring_labels: shape"),
    "no ring": (lambda s: {k: t for k, t in s.items() if k != "ring"}, "Missing key.*ring"),
    "no count": (lambda s: {k: t for k, t in s.items() if k != "written"}, "Missing key.*written"),
    "an unknown key": (lambda s: s | {"more": torch.zeros(1)}, "Unexpected key.*more"),
    "too many": (lambda s: s | {"written": torch.tensor([4])}, "ring_starts: 3 rows filled, but 4 were written"),
    "too few": (lambda s: s | {"written": torch.tensor([2])}, "ring_starts: 3 rows filled, but 2 were written"),
    "negative": (lambda s: s | {"written": torch.tensor([-1])}, "written: -1 rows"),
    "a hole": (lambda s: s | {"ring_starts": torch.tensor([0, -1, 0, 0, -1])}, "ring_starts: 3 rows filled"),
    "a group to come": (lambda s: s | {"ring_starts": torch.tensor([0, 0, 3, -1, -1])}, "a group behind the 3 rows"),
    "number": (lambda s: s | {"written": torch.tensor(3)}, r"written: shape \(\) given, \(1,\) expected"),
    "fractions": (lambda s: s | {"written": torch.tensor([3.0])}, "written: torch.float32 given, torch.int64 expected"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_refused_state_leaves_the_bank_as_it_was(kind):
    spoil, said = SPOILT[kind]
    bank, _ = filled(5, [2, 4])
    other, _ = filled(5, [3])
    before = state_of(bank)
    with pytest.raises(RuntimeError, match=said):
        bank.load_state_dict(spoil(other.state_dict()))
    after = state_of(bank)
    if kind == "an unknown key":  # which PyTorch reports after it has loaded the rest
        before = state_of(other)
    assert all(torch.equal(after[name], t) for name, t in before.items())
    bank.enqueue(torch.zeros(1, D), torch.tensor([7]))
    assert 7 in bank.labels


def test_a_part_of_a_state_does_not_change_the_count():
    bank, _ = filled(5, [2])
    other, _ = filled(5, [3])
    bank.load_state_dict({"written": other.state_dict()["written"]}, strict=False)
    assert len(bank) == 2
    whole = torch.nn.ModuleList([bank])
    whole.load_state_dict({f"0.{name}": t for name, t in other.state_dict().items()})
    assert len(bank) == 3


def test_what_is_not_a_bank_is_named():
    z, y = torch.randn(4, D), torch.tensor([0, 0, 1, 1])
    triplets = (torch.zeros(1).long(),) * 3
    for loss in (ENSCLoss(), ESCLoss(), MVALoss(2, D)):
        with pytest.raises(ValueError, match=r"bank: expected a MemoryBank, got tuple; a miner's indices"):
            loss(z, y, triplets)


def test_a_bank_elsewhere_is_an_error_before_it_is_read():
    z, y = torch.nn.functional.normalize(torch.randn(4, D), dim=1), torch.tensor([0, 0, 1, 1])
    with FakeTensorMode(allow_non_fake_inputs=True):
        bank = MemoryBank(5, D).to("cuda")
        for own in (None, True):
            with pytest.raises(ValueError, match="bank_embeddings: on cuda:0, but the features are on cpu"):
                ENSCLoss()(z, y, bank, own=own)
    bank = MemoryBank(5, D).to("meta")
    with pytest.raises(ValueError, match=r"bank_embeddings: .*meta device"):
        ENSCLoss()(z, y, bank)


@pytest.mark.parametrize("loss", [ESCLoss(), ENSCLoss()])
@pytest.mark.parametrize("capacity", [6, 9, 100])
def test_rows_of_the_batch_already_in_the_bank_are_left_out(loss, capacity):
    torch.manual_seed(0)
    unit = torch.nn.functional.normalize
    z, y = unit(torch.randn(6, D), dim=1).requires_grad_(), torch.tensor([0, 0, 1, 1, 2, -1])
    bank = MemoryBank(capacity, D)
    bank.enqueue(unit(torch.randn(7, D), dim=1), torch.arange(7) % 3)
    results = []
    if capacity > 9:
        results.append(loss(z, y, bank))
    bank.enqueue(z, y)
    newest = bank._places(-6, 0)
    mask = torch.zeros(len(bank), dtype=torch.bool).index_fill(0, newest, True)
    labels = bank.labels.clone()
    numbers = torch.cat([newest, torch.tensor([-1])])
    results += [loss(z, y, bank, own=own) for own in (True, mask, newest, newest.int(), numbers)]
    results.append(loss(z, y, ref_emb=bank.features, ref_labels=bank.labels, own=mask))
    results.append(loss(z, y, ref_emb=bank.features[~mask], ref_labels=bank.labels[~mask]))
    gradients = [torch.autograd.grad(result, z)[0] for result in results]
    for result, gradient in zip(results, gradients, strict=True):
        torch.testing.assert_close((result, gradient), (results[-1], gradients[-1]))
    assert torch.equal(bank.labels, labels)
    assert loss(z, y, bank) > results[-1] + 0.1
    larger = z.repeat(20, 1), y.repeat(20)  # a batch that fills the bank
    bank.enqueue(*larger)
    torch.testing.assert_close(loss(*larger, bank, own=True), loss(*larger))


def test_rows_that_own_cannot_name():
    z, y = torch.nn.functional.normalize(torch.randn(4, D), dim=1), torch.tensor([0, 0, 1, 1])
    bank, _ = filled(5, [5])
    given = {"ref_emb": bank.features, "ref_labels": bank.labels}
    for own, said in (
        (torch.tensor([5]), r"own: row 5 is outside \[0, 5\)"),
        (torch.tensor([-2]), "own: row -2"),
        (torch.ones(4, dtype=torch.bool), r"own: expected a mask \(5,\) or row numbers \(k,\), got torch.bool \(4,\)"),
        (torch.ones(5), "own: expected a mask"),
        ([1], "own: expected a tensor"),
        (True, "own: True is of a MemoryBank"),
    ):
        with pytest.raises(ValueError, match=said):
            ENSCLoss()(z, y, **given, own=own)
    with pytest.raises(ValueError, match="own: names rows of a bank, but none is given"):
        ENSCLoss()(z, y, own=torch.tensor([0]))


BACKENDS = ["reference", "blocked", *(["triton"] if triton_runs_on("cpu") else [])]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [3, 300])
@pytest.mark.parametrize("sizes", [[], [4], [6, 2], [6, 1, 7, 3], [2, 20]])
def test_mva_sees_the_groups_that_the_bank_holds(sizes, classes, backend, reduction):
    torch.manual_seed(0)
    loss, bank = MVALoss(classes, D, groups=4, reduction=reduction, backend=backend), MemoryBank(16, D)
    for size in sizes:
        bank.enqueue(torch.randn(size, D) * (1 + size), torch.randint(classes, (size,)))
    if sizes:
        with torch.no_grad():
            bank.ring.index_fill_(0, (bank.ring_labels < 0).nonzero()[:, 0], torch.nan)  # whatever they hold
    x, y = torch.randn(5, D, requires_grad=True), torch.randint(classes, (5,))
    centers = loss.centers.double()
    found = loss(x, y, bank)
    groups = [(z.double(), y) for z, y in bank.groups(3)]
    assert len(groups) == min(len(sizes), 1 if 20 in sizes else 3)
    wide = x.detach().double().requires_grad_()
    exact = fer_fast.functional.mva_loss(wide, y, centers, groups=groups, reduction=reduction, backend="reference")
    gradients = [torch.autograd.grad(value.sum(), of)[0].double() for value, of in ((found, x), (exact, wide))]
    torch.testing.assert_close((found.double(), gradients[0]), (exact, gradients[1]), rtol=1e-5, atol=1e-5)
