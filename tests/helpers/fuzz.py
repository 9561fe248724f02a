"""Random calls of every loss, each from two numbers.

A case is drawn from (seed, number) alone: a loss, a dtype, a layout, magnitudes, a degenerate batch, labels, settings
and options of the call. :mod:`fuzz_rule` says what its results are held to.
"""

import math
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from random import Random
from typing import get_type_hints

import torch
from fer_fast.reference.params import Angle, Count, Learnable
from torch import Tensor

from cases import cast, make_inputs
from fer_fast import functional
from fer_fast.registry import LOSSES, LossSpec

FEATURES = ("x", "e", "z")
TABLES = ("weight", "centers", "bank_z")
DTYPES = (torch.float32, torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTERPRETED = (torch.float32, torch.float32, torch.float16)  # the interpreter multiplies bfloat16 as raw bits
LABEL_DTYPES = (torch.int64, torch.int64, torch.int32, torch.int16, torch.int8)
LABELS = ("random", "random", "random", "one", "own")
KINDS = ("", "", "", "", "zero rows", "constant rows", "equal rows", "duplicates", "near duplicates", "offset")
KINDS += ("nan", "inf", "nan table", "far row", "far center")
LAYOUTS = ("contiguous", "contiguous", "transposed", "strided", "expanded", "offset")
WEIGHTS = ("", "", "", "random", "zeros", "one row", "spread")
NEGATIVE = ("pairwise", "contrastive")  # families in which a label below 0 is no error
LARGEST = {torch.float16: 2.0, torch.bfloat16: 12.0, torch.float32: 12.0, torch.float64: 12.0}  # norms, powers of ten
DRAWS = 2**16  # of one case, at most


@dataclass(frozen=True)
class Case:
    seed: int
    number: int
    loss: str
    backend: str
    dtype: torch.dtype
    n: int
    num_classes: int
    d: int
    labels: str
    label_dtype: torch.dtype
    negative: bool
    soft: bool
    kind: str
    layout: str
    feature_scale: float
    table_scale: float
    row_weights: str
    class_weights: str
    own: str  # which rows of a bank are left out
    device: str
    groups: tuple[int, ...]  # rows of MVA's
    learnt: dict = field(default_factory=dict)  # hyper-parameters that are tensors
    how: dict = field(default_factory=dict)

    @property
    def command(self) -> str:
        where = f"--backend {self.backend} --device {self.device}"
        return f"python -m tests.fuzz --seed {self.seed} {where} --case {self.number}"


def draw_case(seed: int, number: int, backend: str, device: str = "cpu") -> Case:
    random = Random(f"{seed} {number} {backend}")
    name = random.choice(list(LOSSES))
    spec = LOSSES[name]
    takes = _takes(spec.function)
    small = backend == "triton" and device == "cpu"  # by the interpreter
    dtype = random.choice(INTERPRETED if small else DTYPES)
    n = random.choice((1, 2, 3, 5, 8, 17) if small else (1, 2, 3, 7, 16, 33, 65))
    num_classes = random.choice((1, 2, 3, 7, 20, 70) if small else (1, 2, 3, 7, 20, 90))
    if name in ("affinity", "mva"):
        num_classes = max(num_classes, 2)  # one center has no spread
    labels = random.choice(LABELS)
    if labels == "own":
        num_classes = max(num_classes, n)
    if name == "selfcon":
        n += n % 2
    settings = _settings(random, spec)
    learnt = {key for key, of in _fields(spec) if of is Learnable and random.random() < 0.4}
    how = {key: value for key, value in settings.items() if key not in learnt}
    how["reduction"] = random.choice(spec.reductions)
    soft = "label_smoothing" in takes and random.random() < 0.2
    if "label_smoothing" in takes:
        how["label_smoothing"] = random.choice((0.0, 0.0, 0.1, 0.5, 1.0))
    if "ignore_index" in takes and not soft and random.random() < 0.3:
        how["ignore_index"] = random.choice((0, -100))
    if "normalize" in takes:
        how["normalize"] = random.random() < 0.3
    far = LARGEST[dtype]
    scales = [10 ** random.uniform(-far, far) if random.random() < 0.4 else 1.0 for _ in range(2)]
    if spec.family == "contrastive" and not how["normalize"]:
        scales = [1.0, 1.0]  # of unit rows
    return Case(
        seed=seed,
        number=number,
        loss=name,
        backend=backend,
        dtype=dtype,
        n=n,
        num_classes=num_classes,
        d=random.choice((1, 2, 5, 16, 33, 70) if small else (1, 2, 5, 16, 33, 130)),
        labels=labels,
        label_dtype=random.choice(LABEL_DTYPES),
        negative=spec.family in NEGATIVE and random.random() < 0.3,
        soft=soft,
        kind=random.choice(KINDS),
        layout=random.choice(LAYOUTS),
        feature_scale=scales[0],
        table_scale=scales[random.randrange(2)],
        row_weights=random.choice(WEIGHTS) if "sample_weights" in takes else "",
        class_weights=random.choice(("random", "zeros", "spread")),
        own=random.choice(("", "", "mask", "numbers")) if "own" in takes else "",
        device=device,
        groups=tuple(random.choice((1, 2, 5, 9)) for _ in range(random.randint(0, 4))) if "groups" in takes else (),
        learnt={key: settings.get(key, spec.params._field_defaults[key]) for key in sorted(learnt)},
        how=how,
    )


@cache
def _takes(function: str) -> frozenset[str]:
    """Names of what a public function takes."""
    return frozenset(signature(getattr(functional, function)).parameters)


def _fields(spec: LossSpec) -> list[tuple[str, object]]:
    """The hyper-parameters of a row with their types."""
    return list(get_type_hints(spec.params, include_extras=True).items())


def _settings(random: Random, spec: LossSpec) -> dict:
    """Hyper-parameters, in half of the cases others than the defaults."""
    return {} if random.random() < 0.5 else {name: _setting(random, name, of) for name, of in _fields(spec)}


def _setting(random: Random, name: str, of: object):
    if of is Count:
        return random.randint(1, 4)
    if of is Angle:
        return random.uniform(0, math.pi / 2)
    if name == "feature_gradient":
        return random.choice(("exact", "paper"))
    if name == "lambda_":
        return 10 ** random.uniform(-1.5, 3)
    if name == "margin":
        return 10 ** random.uniform(-3, 5)
    return 10 ** random.uniform(-1.5, 0.3)


def inputs(case: Case, draw: int) -> tuple[dict[str, Tensor], dict]:
    """Tensors by argument name and the other keywords; draws differ in their numbers, every second only in a factor."""
    spec = LOSSES[case.loss]
    of_unit_rows = case.how.get("normalize") is False
    factor = 1.0 if of_unit_rows else 1 + 0.013 * (draw % 2) * draw
    seed = ((case.seed * 1_000_003 + case.number) * DRAWS + (0 if draw % 2 and not of_unit_rows else draw)) % 2**62
    tensors, options = make_inputs(spec, case.n, case.num_classes, case.d, torch.float64, case.labels, seed)
    generator = torch.Generator().manual_seed(seed)
    features = next(name for name in FEATURES if name in tensors)
    tensors[features] = _degenerate(case, tensors[features] * (case.feature_scale * factor), generator)
    for name in TABLES:
        if name in tensors:
            tensors[name] = _of_table(case, tensors[name] * (case.table_scale * factor))
    for name, value in case.learnt.items():
        tensors[name] = torch.tensor(value, dtype=torch.float64)
    if "class_weights" in tensors:
        tensors["class_weights"] = _weights(case.class_weights, case.num_classes, generator)
    if case.row_weights:
        tensors["sample_weights"] = _weights(case.row_weights, case.n, generator)
    if "groups" in options:
        options["groups"] = [_group(case, rows, generator) for rows in case.groups]
    if case.own:
        left_out = torch.rand(len(tensors["bank_z"]), generator=generator) < 0.3
        options["own"] = left_out if case.own == "mask" else torch.where(left_out, torch.arange(len(left_out)), -1)
    _label(case, tensors, generator)
    if case.layout != "expanded":
        tensors[features][..., absent(case, tensors), :] = float(("nan", "inf", "-inf")[case.number % 3])
    tensors = {name: cast(name, t, case.dtype).to(case.device) for name, t in tensors.items()}
    options = {name: _moved(value, case.device) for name, value in options.items()}
    tensors[features] = _laid_out(case, tensors[features])
    if not case.soft and tensors["y"].amax() <= torch.iinfo(case.label_dtype).max:
        tensors["y"] = tensors["y"].to(case.label_dtype)
    return tensors, options | case.how


def _moved(value, device: str):
    """An option's tensors, alone or in groups, to where they are asked for."""
    if isinstance(value, Tensor):
        return value.to(device)
    return [tuple(t.to(device) for t in group) for group in value] if isinstance(value, list) else value


def _label(case: Case, tensors: dict[str, Tensor], generator: torch.Generator) -> None:
    """Label the rows as the case says."""
    y, some = tensors["y"], torch.rand(case.n, generator=generator) < 0.3
    if case.negative:
        y[some] = -3
    if case.how.get("ignore_index") == -100:
        y[some] = -100
    if case.soft:
        hard = torch.nn.functional.one_hot(y, case.num_classes).double()
        share = torch.rand(case.n, 1, generator=generator, dtype=torch.float64).masked_fill(some[:, None], 1)
        tensors["y"] = share * hard + (1 - share) * hard.flip(0)


def absent(case: Case, tensors: dict[str, Tensor]) -> Tensor:
    """Which rows take no part, whatever they hold: (n,)."""
    y = tensors["y"]
    out = torch.zeros(case.n, dtype=torch.bool) if case.soft else (y < 0) | (y == case.how.get("ignore_index", -1))
    if case.row_weights and LOSSES[case.loss].family != "contrastive":  # whose rows are keys all the same
        out = out | (tensors["sample_weights"] == 0)
    return out


def _weights(kind: str, count: int, generator: torch.Generator) -> Tensor:
    """Weights of rows or classes: (count,)."""
    weights = 3 * torch.rand(count, generator=generator, dtype=torch.float64)
    match kind:
        case "zeros":
            weights[torch.rand(count, generator=generator) < 0.4] = 0
        case "one row":
            weights[torch.arange(count) != torch.randint(count, (), generator=generator)] = 0
        case "spread":
            weights = 10 ** (8 * torch.rand(count, generator=generator, dtype=torch.float64) - 4)
    return weights


def _group(case: Case, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, case.d, generator=generator, dtype=torch.float64) * case.feature_scale
    return x.to(case.dtype), torch.randint(case.num_classes, (rows,), generator=generator)


def _degenerate(case: Case, x: Tensor, generator: torch.Generator) -> Tensor:
    n, of_unit_rows = case.n, case.how.get("normalize") is False
    match case.kind:
        case "zero rows":
            x[..., ::3, :] = 0
        case "constant rows":
            x[..., ::2, :] = x[..., ::2, :1]
        case "equal rows":
            x = x[..., :1, :].repeat(*(1 for _ in x.shape[:-2]), n, 1)
        case "duplicates":
            x = x[..., torch.arange(n) // 2, :]
        case "near duplicates":
            x = x[..., torch.arange(n) // 2, :] + 1e-3 * x
        case "offset" if not of_unit_rows:
            x = x + 30 * case.feature_scale
        case "far row" if case.dtype != torch.float16 and not of_unit_rows:
            x[..., 0, :] *= 1e4
        case "nan" | "inf":
            x[..., torch.randint(n, (), generator=generator), 0] = float(case.kind)
    return x


def _of_table(case: Case, table: Tensor) -> Tensor:
    if case.kind == "nan table":
        table[-1, 0] = torch.nan
    if case.kind == "far center" and case.how.get("normalize") is None:
        table[0] *= 1e6
    return table


def _laid_out(case: Case, x: Tensor) -> Tensor:
    match case.layout:
        case "transposed":
            return x.mT.contiguous().mT
        case "strided":
            return torch.stack([x, x], -1).flatten(-2)[..., ::2]
        case "expanded":
            return x[..., :1, :].expand(x.shape)
        case "offset":
            return torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape)
    return x.contiguous()
