"""Classifiers of which each process has some classes are, with all that comes of them, that of one process."""

import pytest
import torch
from fer_fast.reference import softmax
from torch._subclasses.fake_tensor import FakeTensorMode

import sharded_cases
from cases import assert_within_budget
from fer_fast import functional, losses
from fer_fast.blocked.sharded_classifier import _numbers, sharded_classifier
from fer_fast.communication import SHARDED, Batch
from fer_fast.distributed import join
from fer_fast.registry import find
from fer_fast.terms import Classifier, Draw
from sharded_cases import Case, alone, batch, build, on_process, own_classes

HEADS = ("softmax", "weighted-softmax", "lmcl", "arcface", "a-softmax", "l-softmax")
SMOOTHED, FEW = ("label_smoothing", 0.1), 3  # classes: of four processes one has none
TILES = {  # which a table takes by its size, here as if it were large
    "rows": (("LOGITS", 64), ("ROWS", 5)),
    "columns": (("LOGITS", 12), ("ROWS", 5)),
    "classes": (("LOGITS", 4), ("KEPT", 0)),
}
CASES = [
    *[Case(name, classes) for name in HEADS for classes in (11, FEW)],
    *[Case(name, reduction=reduction, weighted=True) for name in HEADS for reduction in ("mean", "none")],
    *[Case(name, gradients="sum", learnt=True, reduction="sum") for name in ("lmcl", "arcface")],
    *[Case(name, sizes=sizes, options=(SMOOTHED,)) for name in HEADS for sizes in TILES.values()],
    *[Case(name, learnt=True, sizes=sizes) for name in ("lmcl", "arcface") for sizes in TILES.values()],
    *[Case(name, FEW, options=(SMOOTHED,)) for name in ("weighted-softmax", "a-softmax")],
    Case("weighted-softmax", weighted=True, options=(("ignore_index", 2), SMOOTHED)),
    Case("softmax", options=(("ignore_index", -100),)),
    Case("softmax", auxiliary="center"),
    Case("lmcl", auxiliary="variant", weighted=True),
    Case("a-softmax", backend="triton"),  # which leaves it to products of PyTorch
    *[Case(name, backend="reference", reduction="none") for name in HEADS],
    *[Case("weighted-softmax", backend="reference", gradients=of, options=(SMOOTHED,)) for of in ("mean", "sum")],
]
TWO = [*[Case(name) for name in HEADS], Case("l-softmax", compiled=True)]


def assert_equal_to_one_process(group, case: Case, how=on_process) -> None:
    found = group.run(how, [case])
    for rank, (expected, (share,)) in enumerate(zip(alone(case, group.size), found, strict=True)):
        assert share.keys() == expected.keys()
        for name, value in expected.items():
            close = {"rtol": 0, "atol": 1e-12 * max(1, float(value.abs().amax()) if value.numel() else 1)}
            where = f"rank {rank}, {name}: "
            torch.testing.assert_close(share[name], value, **close, msg=where.__add__)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_four_processes(four, case):
    assert_equal_to_one_process(four, case)


@pytest.mark.parametrize(
    "case", [Case("weighted-softmax", options=(SMOOTHED,)), Case("lmcl", weighted=True, reduction="none")], ids=str
)
def test_rows_that_are_filled_up(four, case):
    assert_equal_to_one_process(four, case, sharded_cases.filled_up)


@pytest.mark.parametrize("case", TWO, ids=str)
def test_two_processes(two, case):
    assert_equal_to_one_process(two, case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", HEADS)
def test_precision(four, name, dtype):
    """At most twice plain PyTorch's error in the same precision."""
    case = Case(name, dtype=dtype)
    plain, truth = case._replace(backend="reference"), case._replace(dtype=torch.float64, rounded=dtype)
    found = [share for (share,) in four.run(on_process, [case])]
    with torch.autocast("cpu", dtype, enabled=dtype.itemsize == 2):
        worst = alone(plain, four.size)
    for share, of_plain, right in zip(found, worst, alone(truth, four.size), strict=True):
        kept = [name for name in right if not name.startswith(("logits", "b")) and right[name].numel()]
        assert_within_budget(*[[{name: of[name] for name in kept}] for of in (share, of_plain, right)])


def test_all_processes_have_the_same_loss_to_the_bit(four):
    shares = [share for (share,) in four.run(on_process, [Case("lmcl", dtype=torch.float32, learnt=True)])]
    for name in ("loss 0", "ds"):
        assert all(torch.equal(share[name], shares[0][name]) for share in shares)


def test_bytes_are_as_foretold(two):
    expected = SHARDED.bytes(Batch(processes=2, rows=9, classes=11, columns=sharded_cases.D, bias=True))
    assert two.run(sharded_cases.counted, 9) == [expected, expected]


@pytest.mark.parametrize("num_classes", [11, FEW])
def test_state_of_four_processes_on_two_and_on_one(four, two, num_classes):
    """Of this process's rows, and of all."""
    found = four.run(sharded_cases.states, num_classes, True)
    whole = sharded_cases.model_of(num_classes, True).state_dict()
    for own, gathered, again in found:
        assert gathered.keys() == whole.keys() == again.keys() == own.keys() - {"loss.class_block"}
        assert all(torch.equal(t[name], value) for name, value in whole.items() for t in (gathered, again))
    joined = join([own for own, *_ in reversed(found)])
    assert joined.keys() == whole.keys()
    assert all(torch.equal(joined[name], value) for name, value in whole.items())
    for rank, (weight, bias) in enumerate(two.run(sharded_cases.loaded, joined, num_classes)):
        classes = own_classes(num_classes, rank, 2)
        assert torch.equal(weight, whole["loss.weight"][classes])
        assert torch.equal(bias, whole["loss.bias"][classes])
    one = losses.SoftmaxLoss(num_classes, sharded_cases.D, torch.ones(num_classes))
    one.load_state_dict({name[5:]: value for name, value in joined.items() if name.startswith("loss.")})
    assert torch.equal(one.weight, whole["loss.weight"])


def test_states_that_do_not_fit(four, two):
    own = [state for state, *_ in four.run(sharded_cases.states, 11, False)]
    answers = two.run(sharded_cases.loaded, own[1], 11)
    assert "class_block: classes 3 to 5 of 11 given, 0 to 5 of 11 expected; fer_fast.distributed.join" in answers[0]
    assert "6 to 10 of 11 expected" in answers[1]
    for some in (own[:3], [*own, own[1]]):
        with pytest.raises(ValueError, match=r"loss\.class_block: classes 0 to 2, 3 to 5.* of 11; the states of all"):
            join(some)


@pytest.mark.parametrize("cut", [False, True])
def test_over_and_distributed_data_parallel(four, cut):
    """Weights become the first process's; gradients are one process's: of a layer's everywhere, of classes where they
    are."""
    found, model = four.run(sharded_cases.over_ddp, 11, cut), sharded_cases.model_of(11).double()
    given = batch(Case("softmax"), 4)
    model["loss"](model["layer"](given["x"]), given["y"]).backward()
    for rank, gradients in enumerate(found):
        for name, parameter in model.named_parameters():
            expected = parameter.grad[own_classes(11, rank, 4)] if name.startswith("loss") else parameter.grad
            torch.testing.assert_close(gradients[name], expected, rtol=0, atol=1e-12)


def test_some_classes_take_part(four):
    """Those of the batch, and of the others as many as make up the share: their loss is the plain formula's."""
    num_classes, given = 203, batch(Case("softmax", 203), 4)
    steps = list(zip(*four.run(sharded_cases.sampled, num_classes, 0.6), strict=True))
    present = set(given["y"].tolist())
    drawn = []
    for step, parts in enumerate(steps):
        tables = {name: torch.cat([part[name] for part in parts]) for name in ("weight", "bias", "dweight", "dbias")}
        used = tables["dbias"].nonzero()[:, 0]
        drawn.append(set(used.tolist()))
        counts = [int((part["dbias"] != 0).sum()) for part in parts]
        most = -(-num_classes // 4)
        assert counts == ([31, 31, 31, 30] if step < 2 else [most, most, most, num_classes - 3 * most])
        assert present <= drawn[-1]
        x, weight, bias = given["x"].clone().requires_grad_(), tables["weight"][used], tables["bias"][used]
        leaves = x, weight.requires_grad_(), bias.requires_grad_()
        loss = softmax(x, torch.searchsorted(used, given["y"]), weight, bias)
        dx, dweight, dbias = torch.autograd.grad(loss, leaves)
        found = {"dx": 4 * dx, "dweight": dweight, "dbias": dbias}
        close = {"rtol": 0, "atol": 1e-12}
        torch.testing.assert_close(torch.cat([part["dx"] for part in parts]), found["dx"], **close)
        for name in ("dweight", "dbias"):
            torch.testing.assert_close(tables[name][used], found[name], **close)
            assert not tables[name].index_fill(0, used, 0).any()
        assert all(abs(part["loss"] - loss) < 1e-12 for part in parts)
    assert drawn[0] != drawn[1]
    assert [int(part["draws"] - steps[0][0]["draws"]) for part in (step[0] for step in steps)] == [0, 1, 1]


def test_every_class_is_drawn_as_often():
    classes, steps = torch.arange(40), torch.arange(2000)
    drawn = torch.stack([_numbers(step, classes).topk(10).indices for step in steps])
    counts = drawn.flatten().bincount(minlength=40)
    assert (counts - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5
    together = (drawn == 3).any(1) & (drawn == 4).any(1)  # neighbours: no more often than others
    assert abs(int(together.sum()) - 2000 * 10 * 9 / (40 * 39)) < 5 * 2000**0.5 * 0.24


def test_a_label_that_no_process_has():
    """On a device, where nobody looks, it is seen in the loss; a row of weight 0 has none."""
    x, y, weight = torch.randn(4, 6), torch.tensor([0, 2, -1, 5]), torch.randn(5, 6)
    for weights, finite in (((1, 1, 0, 0), True), ((1, 1, 1, 0), False), ((1, 1, 0, 1), False)):
        given = x, y, Classifier("softmax", weight), 5, torch.tensor(weights, dtype=torch.float32), "mean", Draw(), True
        assert all(t.isfinite().all() == finite for t in sharded_classifier(*given)[:2])


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("name", HEADS)
def test_nothing_waits_for_a_device(name, share):
    """Tensors that have no values, of a GPU that need not be there: a look at one raises."""
    with FakeTensorMode():
        on = {"device": "cuda"}
        x, y, weight = torch.randn(64, 16, **on), torch.zeros(64, dtype=torch.int64, **on), torch.randn(500, 16, **on)
        row, draw = find(name), Draw(share, torch.zeros((), dtype=torch.int64, **on))
        head = Classifier(name.removeprefix("weighted-"), weight, params=tuple(map(float, row.params())))
        given = head, len(weight), torch.ones(64, **on), "mean", draw, True
        loss, dx, dweight, *_ = sharded_classifier(x, y, *given)
    assert (loss.shape, dx.shape, dweight.shape) == ((), x.shape, weight.shape)


def test_one_process_has_all():
    case = Case("softmax")
    given, plain, sharded = batch(case, 4), build(case), build(case, sharded=True)
    assert plain.state_dict().keys() == sharded.state_dict().keys()
    calls = [sharded_cases.call(case, loss, given, slice(None)) for loss in (plain, sharded)]
    for name, value in calls[0].items():
        torch.testing.assert_close(calls[1][name], value, rtol=0, atol=1e-12)


X, Y, W = torch.randn(4, 6), torch.tensor([0, 2, 1, 1]), torch.randn(5, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: functional.lmcl_loss(X, Y, W, num_classes=7), "weight: 5 classes given, but rank 0 of 1 has 7 of 7"),
        (lambda: functional.lmcl_loss(X, Y + 3, W, num_classes=5), r"labels: class 5 is outside \[0, 5\)"),
        (lambda: functional.softmax_loss(X, Y, W, num_classes=0), "num_classes: 0 given"),
        (lambda: functional.softmax_loss(X, Y, W, W[:4, 0], num_classes=5), r"bias: expected shape \(5,\)"),
        (
            lambda: functional.softmax_loss(X, Y, W, class_weights=W[:4, 0], num_classes=5),
            r"class_weights: expected shape \(5,\)",
        ),
        (lambda: functional.lmcl_loss(X, X[:, :5].softmax(1), W, num_classes=5), "lmcl loss sharded by class"),
        (
            lambda: functional.joint_loss(
                X, Y, functional.Term("softmax", W, num_classes=5), functional.Term("island", W, params=(1.0, 0.5))
            ),
            "classifier: sharded by class, it shares no pass with island loss",
        ),
        (lambda: losses.LMCLLoss(5, 6, negative_share=0.5), "negative_share: 0.5 given; of the classes of"),
        (
            lambda: losses.LMCLLoss(5, 6, negative_share=0.5, sharded=True, label_smoothing=0.1),
            "negative_share: 0.5 given; label_smoothing is of all classes",
        ),
        (
            lambda: losses.LMCLLoss(5, 6, negative_share=0.5, sharded=True, backend="reference")(X, Y),
            'negative_share: backend="reference" takes all classes',
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
