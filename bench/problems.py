"""What is measured: a loss at a shape in a dtype, its inputs, its floor, and the shapes of the quick and full sets."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fer_fast.errors import InputError
from fer_fast.registry import LOSSES, LossSpec, by_public_name, find
from fer_fast.suggest import one_of

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
VIEWS = 5  # V of the multi-view affinity loss: the batch and four groups of the bank


@dataclass(frozen=True)
class Shape:
    """n samples of width d in `classes` classes; `k` embeddings of each sample; `bank` rows of the memory bank."""

    n: int
    d: int
    classes: int = 7
    k: int = 0
    bank: int = 0

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in asdict(self).items() if value)

    def with_(self, text: str) -> "Shape":
        """This shape with the values of "n=512,d=128" in place of its own."""
        given = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            one_of(name, [f.name for f in fields(self)], "--shape")
            if not value.isdigit() or int(value) < 1:
                raise InputError(f"--shape: {part!r} is not NAME=NUMBER with a number above zero")
            given[name] = int(value)
        return replace(self, **given)


@dataclass(frozen=True)
class Floor:
    """What no implementation can avoid: bytes between memory and chip, and operations (a multiply-add is two)."""

    bytes: int
    operations: int

    def seconds(self, copy_rate: float, matrix_rate: float) -> float:
        """The longer of the two at a rate in bytes a second and one in operations a second."""
        return max(self.bytes / copy_rate, self.operations / matrix_rate)


@dataclass
class Inputs:
    """Arguments of one call: tensors by their symbols in the formula, of which `leaves` want gradients, and options."""

    tensors: dict[str, Tensor]
    options: dict = field(default_factory=dict)

    @property
    def leaves(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.tensors.items() if t.requires_grad}

    @property
    def arguments(self) -> dict:
        """What the loss's function of :mod:`fer_fast.functional` is called with."""
        return by_public_name(self.tensors) | self.options

    def to(self, dtype: torch.dtype | None = None) -> "Inputs":
        """A copy that shares nothing, floating-point tensors in `dtype` where one is given."""

        def copy(t: Tensor) -> Tensor:
            kind = dtype if t.is_floating_point() and dtype else t.dtype
            return t.detach().to(kind, copy=True).requires_grad_(t.requires_grad)

        options = dict(self.options)
        if "groups" in options:
            options["groups"] = [(copy(x), copy(y)) for x, y in options["groups"]]
        return Inputs({name: copy(t) for name, t in self.tensors.items()}, options)

    @property
    def bytes(self) -> int:
        groups = [t for pair in self.options.get("groups", ()) for t in pair]
        return sum(t.nbytes for t in (*self.tensors.values(), *groups))


@dataclass(frozen=True)
class Problem:
    """One loss of the registry at one shape in one dtype of the features. Weights and centers are float32.

    Without `gradient` it is the forward alone.
    """

    loss: str
    shape: Shape
    dtype: str = "float32"
    gradient: bool = True

    @property
    def spec(self) -> LossSpec:
        return find(self.loss)

    def inputs(self, device: torch.device, seed: int = 0) -> Inputs:
        """Fresh inputs: normal features, uniform labels; bank rows of unit length, all filled."""
        inputs = _INPUTS[self.spec.family](self, _Random(device, seed, DTYPES[self.dtype]))
        if not self.gradient:
            inputs.tensors = {name: t.detach() for name, t in inputs.tensors.items()}
        return inputs

    @property
    def floor(self) -> Floor:
        """Compulsory traffic of what is computed, `s.n` etc. as in :class:`Shape`."""
        return _FLOORS[self.spec.engine](self, self.shape, DTYPES[self.dtype].itemsize)

    @property
    def eager_bytes(self) -> int:
        """About what the reference holds at its peak, in float32: says beforehand what cannot fit."""
        s = self.shape
        paired = self.loss in ("fd", "nfd", "ad-corre")
        largest = {
            "class_table": s.n * max(s.d * (s.classes if self.loss == "variant" else 1), s.classes),
            "ad_corre": s.k * s.n * (s.n if paired else s.d),
            "pairwise": s.n * s.n,
            "range_loss": s.n * s.n + s.n * s.n // (2 * s.classes) * s.d,
            "contrastive": s.n * (s.n + s.bank),
        }[self.spec.engine]
        return 6 * 4 * largest


@dataclass
class _Random:
    """Draws on the device, so that large inputs are not carried there."""

    device: torch.device
    seed: int
    dtype: torch.dtype

    def __post_init__(self):
        self.generator = torch.Generator(self.device).manual_seed(self.seed)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device, dtype=dtype or self.dtype)

    def labels(self, count: int, classes: int) -> Tensor:
        return torch.randint(classes, (count,), generator=self.generator, device=self.device)

    def weights(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator, device=self.device) + 0.1


def _classifier(p: Problem, random: _Random) -> Inputs:
    s = p.shape
    tensors = {
        "x": random.normal(s.n, s.d).requires_grad_(),
        "y": random.labels(s.n, s.classes),
        # 1/√d keeps the logits of order one, as at the start of training.
        "weight": (random.normal(s.classes, s.d, dtype=torch.float32) / s.d**0.5).requires_grad_(),
    }
    if p.spec.cls == "SoftmaxLoss":
        tensors["bias"] = random.normal(s.classes, dtype=torch.float32).requires_grad_()
    if p.loss == "weighted-softmax":
        tensors["class_weights"] = random.weights(s.classes)
    # λ = 0, the margin in full: the form that peers without a blend compute too.
    return Inputs(tensors, {"lambda_": 0.0} if "lambda_" in p.spec.params._fields else {})


def _center(p: Problem, random: _Random) -> Inputs:
    s = p.shape
    tensors = {
        "x": random.normal(s.n, s.d).requires_grad_(),
        "y": random.labels(s.n, s.classes),
        "centers": random.normal(s.classes, s.d, dtype=torch.float32),
    }
    options = {"update": True}
    if p.loss == "weighted-cluster":
        tensors["class_weights"] = random.weights(s.classes)
    if p.loss == "mva":
        options["groups"] = [(random.normal(s.n, s.d), random.labels(s.n, s.classes)) for _ in range(VIEWS - 1)]
    return Inputs(tensors, options)


def _correlation(p: Problem, random: _Random) -> Inputs:
    s = p.shape
    tensors = {"e": random.normal(s.k, s.n, s.d).requires_grad_(), "y": random.labels(s.n, s.classes)}
    if p.loss in ("fd", "ad-corre"):
        tensors["class_difficulty"] = random.weights(s.classes)
    return Inputs(tensors, {"num_classes": s.classes} if p.loss in ("nfd", "md") else {})


def _pairwise(p: Problem, random: _Random) -> Inputs:
    s = p.shape
    return Inputs({"x": random.normal(s.n, s.d).requires_grad_(), "y": random.labels(s.n, s.classes)})


def _contrastive(p: Problem, random: _Random) -> Inputs:
    s = p.shape
    tensors = {"z": normalize(random.normal(s.n, s.d), dim=1).requires_grad_(), "y": random.labels(s.n, s.classes)}
    if s.bank:
        bank = normalize(random.normal(s.bank, s.d), dim=1)
        tensors |= {"bank_z": bank, "bank_y": random.labels(s.bank, s.classes)}
    return Inputs(tensors)


_INPUTS: dict[str, Callable[[Problem, _Random], Inputs]] = {
    "classifier": _classifier,
    "center": _center,
    "correlation": _correlation,
    "pairwise": _pairwise,
    "contrastive": _contrastive,
}


def _class_table_floor(p: Problem, s: Shape, size: int) -> Floor:
    """x read and dx written; the table read and its gradient, or its moved self, written.

    MVA reads x again, for α_v needs the whole batch before any gradient, and its groups once. A classifier also
    multiplies: logits, dx and dw, 6nCd. Forward: x and the groups read once, centers still move; a classifier only
    reads its table, and takes a third of the operations.
    """
    classifier = p.spec.family == "classifier"
    passes = 1 + p.gradient + (VIEWS - (not p.gradient) if p.loss == "mva" else 0)
    table = (1 + (p.gradient or not classifier)) * s.classes * s.d * 4
    operations = (6 if p.gradient else 2) * s.n * s.classes * s.d if classifier else 0
    return Floor(passes * s.n * s.d * size + table + s.n * 8, operations)


def _ad_corre_floor(p: Problem, s: Shape, size: int) -> Floor:
    """e read, read again where the gradient needs the finished class sums, and de written.

    ED compares embeddings of one sample and MD's gradient is the same for all rows of a class: one read each. Forward:
    e read once, for FD too is a function of sums by class.
    """
    passes = 1 + p.gradient * (1 if p.loss in ("ed", "md") else 2)
    return Floor(passes * s.k * s.n * s.d * size + s.n * 8, 0)


def _pairwise_floor(p: Problem, s: Shape, size: int) -> Floor:
    """S = U Uᵀ, whose half is enough, n²d, and dU = G U, 2n²d; x read and dx written."""
    return Floor((1 + p.gradient) * s.n * s.d * size + s.n * 8, (1 + 2 * p.gradient) * s.n**2 * s.d)


def _range_floor(p: Problem, s: Shape, size: int) -> Floor:
    """Every pair within a class once: n²/(2C) products of 2d operations at equal classes; x read and dx written."""
    return Floor((1 + p.gradient) * s.n * s.d * size + s.n * 8, s.n**2 // s.classes * s.d)


def _contrastive_floor(p: Problem, s: Shape, size: int) -> Floor:
    """S = Z Kᵀ and the softmax's product with K over batch and bank, 2n(n+M)d each; bank and z read, dz written."""
    keys = s.n + s.bank
    return Floor((p.gradient * s.n + keys) * s.d * size + keys * 8, 2 * (1 + p.gradient) * s.n * keys * s.d)


_FLOORS: dict[str, Callable[[Problem, Shape, int], Floor]] = {
    "class_table": _class_table_floor,
    "ad_corre": _ad_corre_floor,
    "pairwise": _pairwise_floor,
    "range_loss": _range_floor,
    "contrastive": _contrastive_floor,
}

_FAMILY_SHAPES = {
    "classifier": Shape(n=4096, d=512),
    "center": Shape(n=4096, d=512),
    "correlation": Shape(n=1024, d=256, k=7),
    "pairwise": Shape(n=2048, d=256),
    "contrastive": Shape(n=1024, d=128),
}
_SHAPES = {
    "mva": Shape(n=1024, d=512),
    "range": Shape(n=1024, d=256),
    "esc": Shape(n=512, d=128, bank=16384),
    "ensc": Shape(n=512, d=128, bank=16384),
}

# What grows in a sweep, and the values it takes on a CPU and on a GPU.
_BATCHES = {"cpu": (64, 512, 4096, 32768, 131072), "cuda": (64, 1024, 16384, 262144)}
_PAIRS = {"cpu": (512, 1024, 2048, 4096, 8192), "cuda": (1024, 4096, 16384, 65536)}
_BANKS = {"cpu": (4096, 16384, 65536, 262144), "cuda": (65536, 262144, 1048576, 4194304)}
SWEEPS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "lmcl": ("n", _BATCHES),
    "variant": ("n", _BATCHES),
    "ad-corre": ("n", {"cpu": (256, 1024, 4096, 16384, 65536), "cuda": (256, 2048, 16384, 65536)}),
    "marginal": ("n", _PAIRS),
    "range": ("n", {"cpu": (512, 1024, 2048, 4096), "cuda": _PAIRS["cuda"]}),
    "supcon": ("n", _PAIRS),
    "ensc": ("bank", _BANKS),
}
# A GPU is not filled by a laptop's problem.
_ON_GPU = {"contrastive": {"n": 4096, "d": 256}, "correlation": {"n": 2048}, "pairwise": {"n": 8192}}


def quick_shape(loss: str, device_type: str) -> Shape:
    """The one shape of a loss in the quick set."""
    spec = find(loss)
    shape = _SHAPES.get(loss, _FAMILY_SHAPES[spec.family])
    return replace(shape, **_ON_GPU.get(spec.family, {})) if device_type == "cuda" else shape


def quick(losses: list[str], dtype: str, device_type: str) -> list[Problem]:
    """One shape for each loss."""
    return [Problem(loss, quick_shape(loss, device_type), dtype) for loss in losses]


def sweep(losses: list[str], dtype: str, device_type: str) -> list[Problem]:
    """The quick set, and one loss of each family (those of :data:`SWEEPS`) over its growing side."""
    problems = quick(losses, dtype, device_type)
    for loss in losses:
        if loss in SWEEPS:
            axis, values = SWEEPS[loss]
            base = quick_shape(loss, device_type)
            sizes = values["cuda" if device_type == "cuda" else "cpu"]
            problems += [Problem(loss, replace(base, **{axis: value}), dtype) for value in sizes]
    return list(dict.fromkeys(problems))


def losses_named(names: list[str]) -> list[str]:
    """The losses of the registry with these names; all of them when none is given."""
    return [find(name).name for name in names] or list(LOSSES)
