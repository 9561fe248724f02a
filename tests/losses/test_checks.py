"""What every loss, primitive and bank refuses before it reads anything, and the labels they take."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from cases import evaluate, make_inputs
from fer_fast import functional, losses
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES, PUBLIC_NAMES, by_public_name

C, D, N = 4, 16, 12
SPECS = [pytest.param(spec, id=name) for name, spec in LOSSES.items()]
BACKENDS = ["blocked", "reference", *(["triton"] if triton_runs_on("cpu") else [])]
# What a floating-point argument may not be, and what the error says.
BAD_FLOATS = {
    "float8": (lambda t: t.to(torch.float8_e4m3fn), "dtype of torch.float32, .*got torch.float8_e4m3fn"),
    "other float8": (lambda t: t.to(torch.float8_e5m2), "dtype of .*got torch.float8_e5m2"),
    "complex": (lambda t: t.to(torch.complex64), "dtype of .*got torch.complex64"),
    "bool": (lambda t: t > 0, "dtype of .*got torch.bool"),
    "integer": (lambda t: t.to(torch.int32), "dtype of .*got torch.int32"),
    "quantised": (lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8), "dtype of .*got torch.qint8"),
    "sparse": (lambda t: t.to_sparse(), "dense tensor .*sparse"),
    "nested": (lambda t: torch.nested.nested_tensor([t]), "dense tensor .*nested"),
    "meta": (lambda t: t.to("meta"), "with values, got one on the meta device"),
    "list": (lambda t: t.tolist(), "got list"),
    "None": (lambda t: None, "got NoneType"),
}
BAD_LABELS = {
    "float": (lambda y: y.float(), "integer dtype, got torch.float32"),
    "complex": (lambda y: y.to(torch.complex64), "integer dtype, got torch.complex64"),
    "bool": (lambda y: y > 0, "integer dtype, got torch.bool"),
    "quantised": (lambda y: torch.quantize_per_tensor(y.float(), 1, 0, torch.quint8), "got torch.quint8"),
    "sparse": (lambda y: y.to_sparse(), "dense tensor"),
    "meta": (lambda y: y.to("meta"), "meta device"),
    "length": (lambda y: y[:-1], r"expected shape \("),
    "list": (lambda y: y.tolist(), "got list"),
}
OPTIONAL = ("bias", "class_weights", "bank_z", "bank_y")


def call(spec, tensors: dict, options: dict, backend: str) -> Tensor:
    return getattr(functional, spec.function)(**by_public_name(tensors), **options, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("spec", SPECS)
def test_bad_tensors_are_named(spec, backend):
    tensors, options = make_inputs(spec, N, C, D, torch.float32)
    for name, tensor in tensors.items():
        for kind, (spoil, said) in (BAD_LABELS if name in ("y", "bank_y") else BAD_FLOATS).items():
            if kind == "None" and name in OPTIONAL:
                continue
            with pytest.raises(ValueError, match=f"^{PUBLIC_NAMES.get(name, name)}: .*{said}"):
                call(spec, tensors | {name: spoil(tensor)}, options, backend)
    for rows, labels in options.get("groups", ()):
        for bad, said in (
            ((rows.to(torch.float8_e5m2), labels), "bank features: "),
            ((rows, labels > 0), "bank labels: "),
        ):
            with pytest.raises(ValueError, match=said):
                call(spec, tensors, options | {"groups": [bad]}, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("spec", SPECS)
def test_tensors_of_another_device_are_named(spec, backend):
    tensors, options = make_inputs(spec, N, C, D, torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True):
        away = {name: torch.empty_like(t, device="cuda") for name, t in tensors.items()}
        for name in [name for name in tensors if name not in ("x", "e", "z")]:
            with pytest.raises(
                ValueError, match=f"^{PUBLIC_NAMES.get(name, name)}: on cuda:0, but the features are on cpu"
            ):
                call(spec, tensors | {name: away[name]}, options, backend)
        for rows, labels in options.get("groups", ()):
            with pytest.raises(ValueError, match=r"^bank features: on cuda:0"):
                call(spec, tensors, options | {"groups": [(torch.empty_like(rows, device="cuda"), labels)]}, backend)


def test_primitives_refuse_what_losses_do():
    x, y, centers = torch.randn(N, D), torch.arange(N) % C, torch.randn(C, D)
    calls = {
        "features": [
            lambda t: functional.correlation_matrix(t),
            lambda t: functional.center_distances(t, centers),
            lambda t: functional.anti_center_distances(t, y, centers),
        ],
        "centers": [
            lambda t: functional.center_distances(x, t),
            lambda t: functional.anti_center_distances(x, y, t),
        ],
        "embeddings": [
            lambda t: functional.contrastive_log_denominator(t, y),
            lambda t: losses.MemoryBank(N, D).enqueue(t, y),
        ],
    }
    for name, of in calls.items():
        for run in of:
            for spoil, said in BAD_FLOATS.values():
                with pytest.raises(ValueError, match=f"^{name}: .*{said}"):
                    run(spoil(centers if name == "centers" else x))
    for spoil, said in BAD_LABELS.values():
        with pytest.raises(ValueError, match=f"^labels: .*{said}"):
            losses.MemoryBank(N, D).enqueue(x, spoil(y))
        with pytest.raises(ValueError, match=f"^labels: .*{said}"):
            functional.anti_center_distances(x, spoil(y), centers)
    with pytest.raises(ValueError, match=r"^dtype: .*got torch\.float8_e4m3fn"):
        losses.MemoryBank(N, D, dtype=torch.float8_e4m3fn)
    with pytest.raises(ValueError, match=r"^weight: .*got torch\.float8_e5m2"):
        losses.SoftmaxLoss(C, D).to(torch.float8_e5m2)(x, y)


@pytest.mark.parametrize("num_classes", [C, 70])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("spec", SPECS)
def test_narrower_labels_give_the_same_bits(spec, backend, num_classes):
    """Those narrower still are widened to int32 before an engine is chosen: with few classes is enough."""
    tensors, options = make_inputs(spec, N, num_classes, D, torch.float32)
    expected = evaluate(spec, tensors, options, backend=backend)
    for dtype in (torch.int32, torch.int8, torch.uint8) if num_classes == C else (torch.int32,):
        narrow = {name: t if t.is_floating_point() else t.clamp(min=0).to(dtype) for name, t in tensors.items()}
        if "bank_y" in tensors:  # unfilled places are negative
            narrow["bank_y"] = tensors["bank_y"].to(torch.int32 if dtype == torch.uint8 else dtype)
        given = {name: [(x, y.to(dtype)) for x, y in pairs] for name, pairs in options.items() if name == "groups"}
        found = evaluate(spec, narrow, options | given, backend=backend)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bad_label_is_reported_in_either_dtype(backend, dtype):
    x, table, y = torch.randn(N, D), torch.randn(C, D), torch.arange(N, dtype=dtype) % C
    e = torch.randn(2, N, D)
    for bad in (-1, C, 2**31 - 1):
        y[3] = bad
        for run in (
            lambda: functional.softmax_loss(x, y, table, backend=backend),
            lambda: functional.center_loss(x, y, table, backend=backend),
            lambda: functional.md_loss(e, y, C, backend=backend),
            lambda: functional.mva_loss(x, y % C, table, groups=[(x, y)], backend=backend),
        ):
            with pytest.raises(ValueError, match=f"labels: class {bad} is outside"):
                run()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_labels_are_handed_on_as_they_come(dtype):
    from fer_fast import checks

    y = torch.arange(N, dtype=dtype)
    assert checks.labels(y, N, y.device) is y


def test_int32_labels_compile_as_one_graph():
    module = losses.JointLoss(losses.SoftmaxLoss(C, D), losses.CenterLoss(C, D), 0.1).eval()
    x, y = torch.randn(N, D), torch.arange(N, dtype=torch.int32) % C
    run = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(x, y), module(x, y))


def test_fake_tensors_pass():
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, y = torch.randn(N, D), torch.zeros(N, dtype=torch.int32)
        module = losses.JointLoss(losses.SoftmaxLoss(C, D), losses.CenterLoss(C, D), 0.1)
        assert module(x, y).shape == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_allowed_once_is_looked_at_again_when_it_changed(backend):
    x, y, centers = torch.randn(6, 4), torch.arange(6) % 3, torch.randn(3, 4)
    for good in (x, x.clone(), x.double()):
        functional.center_loss(good, y, centers.to(good.dtype), backend=backend)
    for bad, named in ((x[:, :3], "centers"), (x.int(), "features"), (x[:5], "labels"), (x.to_sparse(), "features")):
        for _ in range(2):
            with pytest.raises(ValueError, match=named):
                functional.center_loss(bad, y, centers, backend=backend)
    with pytest.raises(ValueError, match="class 3"):  # a value, which nothing remembers
        functional.center_loss(x, y + 1, centers, backend=backend)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: losses.LMCLLoss(4, 8, m="a"), "m: 'a' given; expected a number"),
        (lambda: losses.CenterLoss(4, 8, alpha=True), "alpha: True given; expected a number"),
        (lambda: losses.SoftmaxLoss(4, 8, label_smoothing=True), "label_smoothing: True given; expected a number"),
        (lambda: losses.SoftmaxLoss(4, 8, ignore_index=1.5), "ignore_index: 1.5 given; expected an integer"),
        (
            lambda: losses.JointLoss(losses.SoftmaxLoss(4, 8), losses.CenterLoss(4, 8), float("nan")),
            "weight: nan given; allowed are finite values",
        ),
    ],
)
def test_settings_that_are_no_numbers_are_named(build, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        build()


@pytest.mark.parametrize("backend", BACKENDS)
def test_integer_labels_of_two_dimensions_are_not_soft(backend):
    head = losses.SoftmaxLoss(4, 8, backend=backend)
    with pytest.raises(ValueError, match=r"^labels: expected .*\(n,\)|^labels: expected shape \(6,\)"):
        head(torch.randn(6, 8), torch.zeros(6, 1, dtype=torch.int64))


def test_class_weights_given_as_a_list_to_a_module_without_values():
    with torch.device("meta"):
        head = losses.SoftmaxLoss(3, 8, class_weights=[1, 2, 3])
        with pytest.raises(ValueError, match=r"^class_weights: -1 for class 1"):
            losses.SoftmaxLoss(3, 8, class_weights=[1, -1, 3])
    assert head.class_weights.is_meta
    built = losses.SoftmaxLoss(3, 8, class_weights=[1, 2, 3])
    head.load_state_dict(built.state_dict(), assign=True)
    x, y = torch.randn(6, 8), torch.arange(6) % 3
    assert torch.equal(head(x, y), built(x, y))
