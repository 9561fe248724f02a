"""fer_fast.compat.pml against the installed pytorch-metric-learning: values, gradients, state, and what is refused."""

import copy
import inspect
import pickle

import pytest
import torch
import torch.utils.checkpoint
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers

import fer_fast
from fer_fast.compat import pml
from fer_fast.dispatch import triton_runs_on

D, C = 8, 5
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
PAIRS = ("SupConLoss", "NTXentLoss")
CLASSIFIERS = ("CosFaceLoss", "ArcFaceLoss", "SphereFaceLoss", "LargeMarginSoftmaxLoss")
DTYPES = [pytest.param(dtype, id=str(dtype).removeprefix("torch.")) for dtype in TOLERANCE]


def close(ours, theirs, dtype):
    """In norm over a tensor."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= TOLERANCE[dtype] * theirs.norm() + torch.finfo(dtype).eps


def compare(ours, theirs, inputs, dtype):
    """Values and gradients of two losses by tensors that both depend on, or pairs of one for each."""
    assert ours.dtype == dtype
    close(ours, theirs, dtype)
    if not theirs.requires_grad:
        assert not ours.requires_grad
        return
    pairs = [pair if isinstance(pair, tuple) else (pair, pair) for pair in inputs]
    for mine, other in pairs:
        (got,) = torch.autograd.grad(ours, mine, retain_graph=True, materialize_grads=True)
        (expected,) = torch.autograd.grad(theirs, other, retain_graph=True, materialize_grads=True)
        close(got, expected, dtype)


def rows(n, dtype, seed, d=D):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()


def drawn(n, seed, low=0, high=C):
    return torch.randint(low, high, (n,), generator=torch.Generator().manual_seed(seed))


def batches():
    """Labels, and those of `ref_emb` where there is one, by what is particular about them."""
    ids = torch.arange(12)
    return {
        "batch": (drawn(23, 0), None),
        "out of order": (torch.tensor([900, 2, 2, 900, -7, 30, -7, 5, 2]), None),
        "int32": (drawn(9, 1).int(), None),
        "uint8": (drawn(9, 1).to(torch.uint8), None),
        "one class": (torch.zeros(6, dtype=torch.int64), None),
        "no positives": (ids, None),
        "one positive pair": (torch.tensor([0, 1, 2, 0]), None),
        "one row": (ids[:1], None),
        "two rows": (torch.zeros(2, dtype=torch.int64), None),
        "two towers": (drawn(23, 2), drawn(17, 3)),
        "unique ids": (ids, ids.clone()),
        "unique ids, shuffled": (ids, drawn(12, 4, 0, 12)),
        "the very tensor": (same := drawn(12, 5), same),
        "unique ids, the very tensor": (ids, ids),
        "the very tensor, uint8": (narrow := drawn(12, 5).to(torch.uint8), narrow),
        "one class, two towers": (torch.ones(4, dtype=torch.int64), torch.ones(7, dtype=torch.int64)),
        "no class in common": (torch.zeros(4, dtype=torch.int64), torch.ones(7, dtype=torch.int64)),
        "anchors of one class": (torch.zeros(4, dtype=torch.int64), drawn(7, 6)),
        "keys of one class": (drawn(9, 7), torch.ones(4, dtype=torch.int64)),
        "one pair of each kind": (torch.tensor([3]), torch.tensor([3, 4])),
        "one pair": (torch.tensor([3]), torch.tensor([3])),
        "one anchor": (torch.tensor([3]), torch.tensor([3, 4, 3])),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["reference", "blocked"])
@pytest.mark.parametrize("case", batches())
@pytest.mark.parametrize("name", PAIRS)
def test_pair_losses(name, case, backend, dtype):
    labels, ref_labels = batches()[case]
    embeddings, given = rows(len(labels), dtype, 8), ()
    if ref_labels is not None:
        given = (None, rows(len(ref_labels), dtype, 9), ref_labels)
    inputs = [embeddings, *given[1:2]]
    with fer_fast.backend(backend):
        ours = getattr(pml, name)()(embeddings, labels, *given)
    theirs = getattr(losses, name)()(embeddings, labels, *given)
    compare(ours, theirs, inputs, dtype)


@pytest.mark.parametrize("name", PAIRS)
def test_pair_losses_over_several_blocks(name, monkeypatch):
    from fer_fast.blocked import pair_losses

    monkeypatch.setattr(pair_losses, "rows_per_sweep", lambda z, width: 1)  # blocks of the fewest anchors
    embeddings, ref_emb = rows(71, torch.float64, 0), rows(45, torch.float64, 1)
    given = embeddings, drawn(71, 2), None, ref_emb, drawn(45, 3)
    compare(getattr(pml, name)(0.2)(*given), getattr(losses, name)(0.2)(*given), [embeddings, ref_emb], torch.float64)


@pytest.mark.parametrize("backend", ["reference", "blocked"])
@pytest.mark.parametrize("two_towers", [False, True], ids=["batch", "two towers"])
def test_an_anchor_that_loses_nothing_does_not_count_in_the_mean(backend, two_towers):
    # The first four rows are told apart to the last digit of float32, the others are not.
    embeddings = torch.eye(D)[[0, 0, 1, 1, 2, 2, 3, 3]].clone()
    embeddings[4:] += rows(4, torch.float32, 1).detach()
    embeddings.requires_grad_()
    labels = torch.arange(8) // 2
    given = (embeddings, labels, None, embeddings.detach().clone(), labels) if two_towers else (embeddings, labels)
    theirs = losses.SupConLoss(temperature=0.02)(*given)
    with fer_fast.backend(backend):
        compare(pml.SupConLoss(temperature=0.02)(*given), theirs, [embeddings], torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["reference", "blocked"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in CLASSIFIERS),
        ("CosFaceLoss", {"margin": 0.2, "scale": 16}),
        ("ArcFaceLoss", {"margin": 90, "scale": 8}),
        ("ArcFaceLoss", {"margin": 0}),
        ("SphereFaceLoss", {"margin": 3, "scale": 2.5}),
        ("LargeMarginSoftmaxLoss", {"margin": 2.9, "scale": 0.5}),
        ("LargeMarginSoftmaxLoss", {"margin": 1}),
    ],
)
def test_classifiers(name, settings, backend, dtype):
    built = []
    for library in (pml, losses):
        torch.manual_seed(0)
        built.append(getattr(library, name)(C, D, **settings).to(dtype))
    ours, theirs = built
    assert torch.equal(ours.W, theirs.W)
    assert ours.margin == theirs.margin
    embeddings, labels = rows(23, dtype, 1), drawn(23, 2)
    with fer_fast.backend(backend):
        loss = ours(embeddings, labels)
        close(ours.get_logits(embeddings), theirs.get_logits(embeddings), dtype)
    compare(loss, theirs(embeddings, labels), [embeddings, (ours.W, theirs.W)], dtype)


@pytest.mark.skipif(not triton_runs_on("cpu"), reason="needs Triton's interpreter")
@pytest.mark.parametrize("name", ["SupConLoss", "CosFaceLoss", "ArcFaceLoss", "LargeMarginSoftmaxLoss"])
def test_on_triton(name):
    embeddings, labels = rows(19, torch.float32, 1, 16), drawn(19, 2)
    ours, theirs = (getattr(library, name)(*(() if name in PAIRS else (C, 16))) for library in (pml, losses))
    ours.load_state_dict(theirs.state_dict())
    weights = [] if name in PAIRS else [(ours.W, theirs.W)]
    with fer_fast.backend("triton"):
        loss = ours(embeddings, labels)
    compare(loss, theirs(embeddings, labels), [embeddings, *weights], torch.float32)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_states_travel_both_ways_and_training_goes_on_alike(name):
    ours, theirs = getattr(pml, name)(C, D), getattr(losses, name)(C, D)
    ours.load_state_dict(theirs.state_dict())
    for loss in (ours, theirs):
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.1, momentum=0.9)
        for seed in range(3):
            optimizer.zero_grad()
            loss(rows(9, torch.float32, seed), drawn(9, seed)).backward()
            optimizer.step()
    torch.testing.assert_close(ours.W, theirs.W)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    theirs.load_state_dict(ours.state_dict())


def test_weights_lie_by_classes_whatever_becomes_of_the_module():
    loss, theirs = pml.CosFaceLoss(C, D), losses.CosFaceLoss(C, D)
    loss.load_state_dict(theirs.state_dict())
    for module in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), loss.double()):
        assert module.W.shape == (D, C)
        assert module.W.t().is_contiguous()


def memories(name, **settings):
    return [library.CrossBatchMemory(getattr(library, name)(), D, **settings) for library in (pml, losses)]


def assert_same_queue(ours, theirs):
    assert (ours.queue_idx, ours.has_been_filled) == (theirs.queue_idx, theirs.has_been_filled)
    assert torch.equal(ours.embedding_memory, theirs.embedding_memory)
    assert torch.equal(ours.label_memory, theirs.label_memory)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["reference", "blocked"])
@pytest.mark.parametrize("name", PAIRS)
def test_cross_batch_memory(name, backend, dtype):
    ours, theirs = memories(name, memory_size=20)
    for step, n in enumerate((7, 6, 7, 9, 20, 3)):  # filled to the last row by the third, then round the end
        embeddings, labels = rows(n, dtype, step), drawn(n, step)
        mask = drawn(n, step, 0, 2).bool() if step in (1, 3) else None
        with fer_fast.backend(backend):
            loss = ours(embeddings, labels, enqueue_mask=mask)
        compare(loss, theirs(embeddings, labels, enqueue_mask=mask), [embeddings], dtype)
        assert_same_queue(ours, theirs)
        if step == 4:
            ours.reset_queue()
            theirs.reset_queue()
            assert_same_queue(ours, theirs)


@pytest.mark.parametrize("name", PAIRS)
def test_a_memory_without_rows_or_a_batch_without_rows_loses_nothing(name):
    ours, theirs = memories(name, memory_size=8)
    embeddings, labels = rows(5, torch.float32, 0), drawn(5, 0)
    none, every = (torch.full((5,), entering) for entering in (False, True))
    assert ours(embeddings, labels, enqueue_mask=none).item() == 0
    assert (ours.queue_idx, ours.has_been_filled) == (0, False)  # the package's counts as full from then on
    given = embeddings, labels, None, every
    compare(ours(*given), theirs(*given), [embeddings], torch.float32)
    assert_same_queue(ours, theirs)


def test_a_batch_of_one_row_does_not_meet_its_copy():
    memory = pml.CrossBatchMemory(pml.SupConLoss(), D, memory_size=8)
    first, row = rows(5, torch.float32, 0).detach(), rows(1, torch.float32, 1)
    memory(first, torch.tensor([0, 0, 1, 1, 2]))
    expected = losses.SupConLoss()(row, torch.tensor([1]), None, first, torch.tensor([0, 0, 1, 1, 2]))
    close(memory(row, torch.tensor([1])), expected, torch.float32)


def test_a_checkpoint_that_would_enqueue_twice_is_refused():
    memory = pml.CrossBatchMemory(pml.SupConLoss(), D, memory_size=8)
    embeddings, labels = rows(4, torch.float32, 0), drawn(4, 0)
    loss = torch.utils.checkpoint.checkpoint(memory, embeddings, labels, use_reentrant=False)
    with pytest.raises(RuntimeError, match=r"^embedding_memory: "):
        loss.backward()
    assert memory.queue_idx == 4


def test_the_queue_is_part_of_the_state_and_a_package_s_state_leaves_it_empty():
    ours, theirs = memories("SupConLoss", memory_size=8)
    for loss in (ours, theirs):
        loss(rows(5, torch.float32, 0), drawn(5, 0))
    resumed = memories("SupConLoss", memory_size=8)[0]
    resumed.load_state_dict(ours.state_dict())
    assert_same_queue(resumed, theirs)
    fresh, restored = memories("SupConLoss", memory_size=8)
    for loss in (fresh, restored):
        loss.load_state_dict(theirs.state_dict())
    assert_same_queue(fresh, restored)


@pytest.mark.parametrize("name", [*PAIRS, *CLASSIFIERS])
def test_constructors_have_the_package_s_names_and_defaults(name):
    def taken(of) -> dict:
        parameters = [p for base in reversed(of.__mro__) for p in inspect.signature(base.__init__).parameters.values()]
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return {p.name: p.default for p in parameters if p.kind not in kinds and p.name != "self"}

    theirs = taken(getattr(losses, name))
    theirs.pop("mat_based_loss", None)  # what GenericPairLoss is told by its subclasses
    assert theirs.items() <= taken(getattr(pml, name)).items()
    forward = [list(inspect.signature(getattr(library, name).forward).parameters) for library in (pml, losses)]
    assert forward[0] == forward[1]


def test_modules_show_their_settings():
    assert repr(pml.CosFaceLoss(C, D)) == f"CosFaceLoss(num_classes={C}, margin=0.35, scale=64.0)"
    assert "memory_size=8" in repr(pml.CrossBatchMemory(pml.NTXentLoss(temperature=0.2), D, memory_size=8))
    assert repr(pml.NTXentLoss(temperature=0.2)) == "NTXentLoss(temperature=0.2)"


def test_the_package_s_defaults_may_be_spelled_out():
    cosine = distances.CosineSimilarity()
    pml.SupConLoss(0.1, distance=cosine, reducer=reducers.AvgNonZeroReducer(), embedding_regularizer=None)
    pml.NTXentLoss(temperature=0.5, distance=cosine, reducer=reducers.MeanReducer(), collect_stats=False)
    loss = pml.CosFaceLoss(num_classes=C, embedding_size=D, weight_init_func=torch.nn.init.ones_, weight_reg_weight=2)
    assert torch.equal(loss.W, torch.ones(D, C))


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("distance", lambda: pml.SupConLoss(distance=distances.LpDistance())),
        ("distance", lambda: pml.NTXentLoss(distance=distances.CosineSimilarity(power=2))),
        ("reducer", lambda: pml.SupConLoss(reducer=reducers.MeanReducer())),
        ("reducer", lambda: pml.NTXentLoss(reducer=reducers.DoNothingReducer())),
        ("embedding_regularizer", lambda: pml.NTXentLoss(embedding_regularizer=regularizers.LpRegularizer())),
        ("weight_regularizer", lambda: pml.ArcFaceLoss(C, D, weight_regularizer=regularizers.LpRegularizer())),
        ("collect_stats", lambda: pml.ArcFaceLoss(C, D, collect_stats=True)),
        ("temperature", lambda: pml.NTXentLoss(temperature=0.0)),
        ("margin", lambda: pml.ArcFaceLoss(C, D, margin=181)),
        ("margin", lambda: pml.SphereFaceLoss(C, D, margin=0)),
        ("scale", lambda: pml.CosFaceLoss(C, D, scale=0)),
        ("num_classes", lambda: pml.CosFaceLoss(0, D)),
        ("embedding_size", lambda: pml.CosFaceLoss(C, 0)),
        ("loss", lambda: pml.CrossBatchMemory(losses.SupConLoss(), D)),
        ("loss", lambda: pml.CrossBatchMemory(pml.CosFaceLoss(C, D), D)),
        ("miner", lambda: pml.CrossBatchMemory(pml.SupConLoss(), D, miner=miners.MultiSimilarityMiner())),
    ],
)
def test_what_is_not_supported_is_refused_by_name(name, build):
    with pytest.raises(ValueError, match=rf"^{name}: "):
        build()


def calls():
    x, y, pairs = rows(4, torch.float32, 0), drawn(4, 0), (torch.tensor([0]),) * 4
    supcon, cosface = pml.SupConLoss(), pml.CosFaceLoss(C, D)
    memory = pml.CrossBatchMemory(supcon, D, memory_size=3)
    return {
        "indices_tuple of a pair loss": ("indices_tuple", lambda: supcon(x, y, pairs)),
        "indices_tuple of a classifier": ("indices_tuple", lambda: cosface(x, y, indices_tuple=pairs)),
        "indices_tuple of a memory": ("indices_tuple", lambda: memory(x, y, pairs)),
        "no labels": ("labels", lambda: supcon(x)),
        "float labels": ("labels", lambda: supcon(x, y.float())),
        "too few labels": ("labels", lambda: cosface(x, y[:3])),
        "a label that is no class": ("labels", lambda: cosface(x, y + C)),
        "ref_emb of a classifier": ("ref_emb", lambda: cosface(x, y, None, x, y)),
        "ref_emb alone": ("ref_labels", lambda: supcon(x, y, ref_emb=x)),
        "ref_labels alone": ("ref_labels", lambda: supcon(x, y, ref_labels=y)),
        "ref_emb of another width": ("ref_emb", lambda: supcon(x, y, None, x[:, 1:], y)),
        "embeddings of another rank": ("embeddings", lambda: supcon(x[0], y)),
        "a batch beyond the memory": ("embeddings", lambda: memory(x, y)),
        "embeddings of another width than the memory": ("embeddings", lambda: memory(x[:, 1:], y)),
    }


@pytest.mark.parametrize("case", calls())
def test_what_does_not_fit_is_refused_by_name(case):
    name, call = calls()[case]
    with pytest.raises(ValueError, match=rf"^{name}: "):
        call()


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("two_towers", [False, True], ids=["batch", "two towers"])
def test_a_row_that_is_nan_is_seen(name, two_towers):
    embeddings = rows(6, torch.float32, 0).detach()
    embeddings[2, 3] = float("nan")
    labels = torch.arange(6) // 2
    given = (None, embeddings, labels.clone()) if two_towers else ()
    assert getattr(pml, name)()(embeddings, labels, *given).isnan()


@pytest.mark.parametrize("name", PAIRS)
def test_half_precision_gives_a_float32_loss_near_the_full_one(name):
    embeddings, labels = rows(12, torch.float32, 0), drawn(12, 1)
    loss = getattr(pml, name)()
    value = loss(embeddings.half(), labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(embeddings, labels), rtol=5e-3, atol=0)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("backend", ["reference", "blocked"])
def test_the_other_tower_may_have_another_dtype(name, backend):
    embeddings, ref_emb, labels, ref_labels = *(rows(9, torch.float32, k) for k in (0, 1)), drawn(9, 2), drawn(9, 3)
    loss = getattr(pml, name)()
    with fer_fast.backend(backend):
        value = loss(embeddings, labels, None, ref_emb.double(), ref_labels)
    compare(value, loss(embeddings, labels, None, ref_emb, ref_labels), [embeddings, ref_emb], torch.float32)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("two_towers", [False, True], ids=["batch", "two towers"])
def test_autocast_rounds_nothing(name, two_towers):
    embeddings, labels, loss = rows(19, torch.float32, 0), drawn(19, 1), getattr(pml, name)()
    given = (embeddings, labels, None, rows(17, torch.float32, 2), drawn(17, 3)) if two_towers else (embeddings, labels)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(*given)
    compare(value, loss(*given), [embeddings], torch.float32)


def test_ntxent_goes_on_where_the_package_s_saturates():
    z = torch.eye(2)[[0, 1, 0]].requires_grad_()
    labels = torch.tensor([0, 0, 1])  # the positive pair is orthogonal, the negative one parallel
    exact = (0.5 * (1 / 0.01 + torch.tensor(2.0).log())).item()
    assert pml.NTXentLoss(0.01)(z, labels).item() == pytest.approx(exact, rel=1e-6)
    assert losses.NTXentLoss(0.01)(z, labels).item() < 0.9 * exact
