"""What people run into who build a loss, print it, save it, and give it a batch that a sampler left empty."""

import copy
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fer_fast import functional, losses
from fer_fast.compat import pml
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES
from loss_modules import C, D, N, batch, build

BACKENDS = ["blocked", "reference", *(["triton"] if triton_runs_on("cpu") else [])]
over_losses = pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in LOSSES.items()])
over_backends = pytest.mark.parametrize("backend", BACKENDS)
over_classifiers = pytest.mark.parametrize(
    "spec", [pytest.param(spec, id=name) for name, spec in LOSSES.items() if spec.family == "classifier"]
)


@over_backends
@over_losses
def test_an_empty_batch_is_zero_where_that_is_asked_for(spec, backend):
    rows = spec.family == "correlation"
    for reduction in spec.reductions:
        module = build(spec, backend=backend, reduction=reduction, empty="zero")
        before = copy.deepcopy(module.state_dict())
        for parameter in module.parameters():
            parameter.data.flatten()[0] = torch.nan  # which 0 times it would be, too
        features, labels = batch(spec)
        features = features.narrow(int(rows), 0, 0).half().requires_grad_()
        loss = module(features, labels[:0])
        assert loss.dtype == torch.float32
        assert loss.tolist() == ([] if reduction == "none" else 0.0)
        loss.sum().backward()
        assert features.grad.shape == features.shape
        for parameter in module.parameters():
            assert torch.equal(parameter.grad, torch.zeros_like(parameter))
        for name, buffer in module.named_buffers():
            assert torch.equal(buffer, before[name])


@over_losses
def test_an_empty_batch_is_an_error_unless_asked_for(spec):
    place = int(spec.family == "correlation")
    features, labels = batch(spec)
    nothing = features.narrow(place, 0, 0)
    with pytest.raises(ValueError, match="at least one row"):
        build(spec)(nothing, labels[:0])
    with pytest.raises(ValueError, match=r"empty: 'nil' is not one of error, zero"):
        build(spec, empty="nil")
    lenient, strict = build(spec, empty="zero").eval(), build(spec).eval()
    strict.load_state_dict(lenient.state_dict())
    assert torch.equal(lenient(features, labels), strict(features, labels))
    faults = [
        (nothing.long(), labels[:0]),
        (nothing[..., :0], labels[:0]),
        (nothing, labels),
        (nothing.flatten(), labels[:0]),
    ]
    if hasattr(lenient, "feature_dim"):
        faults.append((nothing[:, :-1], labels[:0]))
    for wrong, y in faults:
        with pytest.raises(ValueError, match=r"^(features|embeddings): "):
            lenient(wrong, y)


def test_a_learnt_temperature_and_keywords_of_an_empty_batch():
    temperature = nn.Parameter(torch.tensor(0.1))
    z, y = torch.zeros(0, D), torch.zeros(0, dtype=torch.int64)
    module = losses.ESCLoss(temperature=temperature, empty="zero")
    loss = module(z, y, losses.MemoryBank(4, D), sample_weights=torch.ones(0))
    loss.backward()
    assert temperature.grad == 0
    assert losses.SelfConLoss(empty="zero")(z) == 0
    soft = losses.SoftmaxLoss(C, D, empty="zero")(torch.zeros(0, D, dtype=torch.float64), torch.zeros(0, C))
    assert soft.dtype == torch.float64
    window = losses.FDLoss(C, empty="zero")
    window(torch.zeros(2, 0, D), y, predictions=y)
    assert not window.confusion.any()


@over_backends
def test_an_empty_batch_of_two_losses(backend):
    x, y = torch.zeros(0, D, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    for auxiliary in (losses.CenterLoss, losses.MarginalLoss):
        shape = (C, D) if auxiliary is losses.CenterLoss else ()
        parts = [losses.SoftmaxLoss(C, D, backend=backend, empty="zero"), auxiliary(*shape, backend=backend)]
        with pytest.raises(ValueError, match="at least one row"):
            losses.JointLoss(*parts, 0.5)(x, y)
        parts[1].empty = "zero"
        joint = losses.JointLoss(*parts, 0.5)
        before = [buffer.clone() for buffer in joint.buffers()]
        joint(x, y).backward()
        assert not any(parameter.grad.any() for parameter in joint.parameters())
        assert all(map(torch.equal, joint.buffers(), before))
        parts[0].empty = "error"
        with pytest.raises(ValueError, match="at least one row"):
            joint(x, y)


def test_an_empty_batch_in_a_compiled_step():
    module = losses.JointLoss(losses.LMCLLoss(C, D, empty="zero"), losses.CenterLoss(C, D, empty="zero"), 0.5)
    run = torch.compile(module, fullgraph=True, backend="aot_eager")
    for rows in (N, 0, N - 1):
        x, y = torch.randn(rows, D, requires_grad=True), torch.arange(rows) % C
        run(x, y).backward()
        assert x.grad.shape == x.shape


@over_backends
def test_two_losses_of_other_sizes_are_refused(backend):
    softmax = losses.SoftmaxLoss(C, D)
    for auxiliary, said in (
        (losses.CenterLoss(C + 1, D), f"num_classes: {C} of SoftmaxLoss beside {C + 1} of CenterLoss"),
        (losses.MVALoss(C, D + 1), f"feature_dim: {D} of SoftmaxLoss beside {D + 1} of MVALoss"),
        (losses.MDLoss(C - 1), f"num_classes: {C} of SoftmaxLoss beside {C - 1} of MDLoss"),
    ):
        with pytest.raises(ValueError, match=said):
            losses.JointLoss(softmax, auxiliary, 0.1)
    x, y = torch.randn(N, D), torch.arange(N) % C
    terms = functional.Term("softmax", torch.randn(C, D)), functional.Term("center", torch.randn(C + 1, D))
    with pytest.raises(ValueError, match=f"centers: {C + 1} classes, but weight has {C}"):
        functional.joint_loss(x, y, *terms, backend=backend)


BAD_FEATURES = {
    "width": (lambda x: x[:, :-1], rf"expected \(n, {D}\) to match (weight|W), got \({N}, {D - 1}\)"),
    "rank": (lambda x: x[0], r"expected shape \(n, d\)"),
    "dtype": (lambda x: x.long(), "expected a dtype of .*int64"),
    "meta": (lambda x: x.to("meta"), ".*meta device"),
    "list": (lambda x: x.tolist(), ".*got list"),
}


@pytest.mark.parametrize("kind", BAD_FEATURES)
@over_classifiers
def test_logits_blame_the_features(spec, kind):
    spoil, said = BAD_FEATURES[kind]
    head = build(spec)
    x = torch.randn(N, D)
    joint = losses.JointLoss(head, losses.CenterLoss(C, D), 0.1)
    for scores in (head.logits, joint.logits):
        with pytest.raises(ValueError, match=f"^features: {said}"):
            scores(spoil(x))
    assert head.logits(x[:0]).shape == (0, C)
    with pytest.raises(ValueError, match=r"^weight: .*meta"):
        build(spec).to("meta").logits(x)


@pytest.mark.parametrize("kind", BAD_FEATURES)
@pytest.mark.parametrize("cls", [pml.CosFaceLoss, pml.ArcFaceLoss, pml.SphereFaceLoss, pml.LargeMarginSoftmaxLoss])
def test_logits_of_other_names_blame_the_embeddings(cls, kind):
    spoil, said = BAD_FEATURES[kind]
    head, x = cls(C, D), torch.randn(N, D)
    for call in (head.get_logits, lambda x: head(x, torch.arange(N) % C)):
        with pytest.raises(ValueError, match=f"^embeddings: {said}"):
            call(spoil(x))


@over_losses
def test_a_constructor_says_what_it_takes(spec):
    cls = getattr(losses, spec.cls)
    with pytest.raises(TypeError, match=rf"^{spec.cls}: too many positional arguments; it takes \(.*reduction, .*\)$"):
        cls(*[2] * 20)
    with pytest.raises(TypeError, match=rf"^{spec.cls}: got an unexpected keyword argument 'classes'; it takes \("):
        build(spec, classes=7)


def test_ed_takes_no_classes():
    with pytest.raises(
        TypeError, match=r"^EDLoss: .*; it takes \(\*, reduction, backend, empty, process_group, gradients\)$"
    ):
        losses.EDLoss(7)
    with pytest.raises(
        TypeError, match=r"^NFDLoss: missing a required argument: 'num_classes'; it takes \(num_classes"
    ):
        losses.NFDLoss()


WEIGHTED = [losses.SoftmaxLoss, losses.WeightedClusterLoss]


@pytest.mark.parametrize("cls", WEIGHTED)
def test_class_weights_are_state(cls):
    weights = torch.rand(C)
    module, other = cls(C, D, weights), cls(C, D, torch.ones(C))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.class_weights, weights)
    old = {name: tensor for name, tensor in module.state_dict().items() if name != "class_weights"}
    kept = cls(C, D, torch.ones(C))
    kept.load_state_dict(old)  # a file of before: the present ones stay
    assert kept.class_weights.tolist() == [1.0] * C
    assert all(torch.equal(kept.state_dict()[name], tensor) for name, tensor in old.items())
    joint = losses.JointLoss(losses.SoftmaxLoss(C, D, weights), losses.WeightedClusterLoss(C, D, weights), 1.0)
    state = {name: t for name, t in joint.state_dict().items() if not name.endswith("class_weights")}
    assert len(joint.state_dict()) - len(state) == 2
    joint.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r'Missing key.*"(weight|centers)"'):
        cls(C, D, weights).load_state_dict({})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*class_weights"):
        cls(C, D).load_state_dict(module.state_dict())


def with_version(state: dict, version: int) -> dict:
    for metadata in state._metadata.values():
        metadata["version"] = version
    return state


@over_losses
def test_states_of_earlier_versions_are_read_and_later_ones_refused(spec):
    module, other = build(spec), build(spec)
    before = copy.deepcopy(other.state_dict())
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=rf"state of version 3 of {spec.cls}; this fer-fast reads up to 2"):
            other.load_state_dict(with_version(module.state_dict(), 3), strict=strict)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())
    for version in (1, 2):
        other.load_state_dict(with_version(module.state_dict(), version))
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in other.state_dict().items())


def test_a_later_bank_is_refused_whole():
    bank, other = losses.MemoryBank(8, D), losses.MemoryBank(8, D)
    bank.enqueue(torch.randn(3, D), torch.arange(3))
    pair = nn.ModuleDict({"bank": other})
    state = with_version(nn.ModuleDict({"bank": bank}).state_dict(), 3)
    with pytest.raises(RuntimeError, match=r"bank: state of version 3 of MemoryBank"):
        pair.load_state_dict(state)
    assert len(other) == 0
    pair.load_state_dict(with_version(state, 1))
    assert len(other) == 3


@over_losses
def test_repr_shows_every_setting_once(spec):
    module = build(spec, reduction="sum", empty="zero")
    for name in inspect.signature(type(module)).parameters:
        assert len(re.findall(rf"\b{name}=", repr(module))) == 1, name
    assert "empty='zero'" in repr(module)
    assert "\n" not in repr(module)


def test_repr_shows_tensors_that_are_settings():
    weights = [0.25, 1.0, 0.5, 1.0]
    text = repr(losses.JointLoss(losses.SoftmaxLoss(C, D, weights), losses.WeightedClusterLoss(C, D, weights), 0.5))
    assert text.count("class_weights=tensor([0.2500, 1.0000, 0.5000, 1.0000])") == 2
    assert "weight=0.5" in text
    assert "class_weights=None" in repr(losses.SoftmaxLoss(C, D))
    assert "temperature=Parameter containing: tensor(0.1000" in repr(losses.SupConLoss(nn.Parameter(torch.tensor(0.1))))
    assert "meta" in repr(losses.SoftmaxLoss(C, D, weights).to("meta"))


SWITCHED = """
import itertools
import sys

import torch

sys.path.insert(0, sys.argv[3])
from fer_fast import losses
from fer_fast.registry import LOSSES
from loss_modules import batch, build
matmul = torch.backends.cuda.matmul
switches = {
    "old": lambda: setattr(matmul, "allow_tf32", True),
    "older": lambda: torch.set_float32_matmul_precision("high"),
    "new": lambda: setattr(matmul, "fp32_precision", "ieee"),
    "newest": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}
refused, step = 0, int(sys.argv[2])
for turn, order in enumerate(itertools.permutations(switches, 2)):
    for name in order:
        switches[name]()
    try:
        torch.get_float32_matmul_precision(), matmul.allow_tf32
    except RuntimeError:
        refused += 1
    for spec in [*LOSSES.values()][turn % step :: step]:
        module, (features, labels) = build(spec, backend=sys.argv[1]), batch(spec)
        features.requires_grad_()
        module(features, labels).backward()
        assert features.grad.isfinite().all()
print("refused by PyTorch:", refused)
"""


@over_backends
def test_tf32_switches_old_and_new_in_any_order(backend):
    """PyTorch refuses to read one switch where it was mixed with another: no loss reads it so."""
    every = "12" if backend == "triton" else "1"  # loss after an order: the interpreter takes its time
    helpers = str(Path(__file__).parents[1] / "helpers")
    command = [sys.executable, "-W", "ignore", "-c", SWITCHED, backend, every, helpers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 0  # orders that were mixed
