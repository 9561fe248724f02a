"""Random calls of every loss, each from two numbers, and the rule that all of their results are held to.

A case is drawn from (seed, number) alone: a loss, a dtype, a layout, magnitudes, a degenerate batch, labels, settings.
`check` answers with what is wrong, or nothing.
"""

import math
from dataclasses import dataclass, field
from random import Random
from typing import get_type_hints

import torch
from fer_fast.reference.params import Angle, Count
from torch import Tensor

from cases import cast, double, evaluate, make_inputs, plain
from fer_fast.registry import LOSSES, LossSpec

FEATURES = ("x", "e", "z")
TABLES = ("weight", "centers")
DTYPES = {"blocked": (torch.float32, torch.float32, torch.bfloat16, torch.float16, torch.float64)}
DTYPES |= {"triton": (torch.float32, torch.float32, torch.float16)}  # the interpreter multiplies bfloat16 as raw bits
DTYPES |= {"reference": DTYPES["blocked"]}
LABEL_DTYPES = (torch.int64, torch.int64, torch.int32, torch.int16, torch.int8)
LABELS = ("random", "random", "random", "one", "own")
KINDS = ("", "", "", "", "zero rows", "constant rows", "equal rows", "duplicates", "near duplicates", "offset")
KINDS += ("nan", "inf", "nan table", "far row", "far center")
LAYOUTS = ("contiguous", "contiguous", "transposed", "strided", "expanded", "offset")
CONTRASTIVE = ("selfcon", "supcon", "esc", "ensc")  # of unit rows
NEGATIVE = ("pairwise", "contrastive")  # families in which a label below 0 is no error
LARGEST = {torch.float16: 2.0, torch.bfloat16: 12.0, torch.float32: 12.0, torch.float64: 12.0}  # norms, powers of ten
DRAWS = 4  # of plain PyTorch, for what error to expect: a single number is often right by luck


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
    kind: str
    layout: str
    feature_scale: float
    table_scale: float
    how: dict = field(default_factory=dict)

    @property
    def command(self) -> str:
        return f"python -m tests.fuzz --seed {self.seed} --backend {self.backend} --case {self.number}"


def draw_case(seed: int, number: int, backend: str) -> Case:
    random = Random(f"{seed} {number} {backend}")
    name = random.choice(list(LOSSES))
    spec = LOSSES[name]
    dtype = random.choice(DTYPES[backend])
    small = backend == "triton"
    n = random.choice((1, 2, 3, 5, 8, 17) if small else (1, 2, 3, 7, 16, 33, 65))
    num_classes = random.choice((1, 2, 3, 7, 20) if small else (1, 2, 3, 7, 20, 90))
    if name in ("affinity", "mva"):
        num_classes = max(num_classes, 2)  # one center has no spread
    labels = random.choice(LABELS)
    if labels == "own":
        num_classes = max(num_classes, n)
    if name == "selfcon":
        n += n % 2
    far = LARGEST[dtype]
    scales = [10 ** random.uniform(-far, far) if random.random() < 0.4 else 1.0 for _ in range(2)]
    if spec.family == "contrastive":
        scales[0] = 1.0  # of unit rows
    how = {"reduction": random.choice(("mean", "sum"))} if name != "range" else {}
    if spec.name != "weighted-softmax" and random.random() < 0.5:
        how |= {field: _setting(random, field, of) for field, of in _settings(spec)}
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
        kind=random.choice(KINDS),
        layout=random.choice(LAYOUTS),
        feature_scale=scales[0],
        table_scale=scales[random.randrange(2)],
        how=how,
    )


def _settings(spec: LossSpec) -> list[tuple[str, object]]:
    """The hyper-parameters of a row that its function takes and that change no state, with their types."""
    return [(name, of) for name, of in get_type_hints(spec.params, include_extras=True).items() if name != "lambda_"]


def _setting(random: Random, name: str, of: object):
    if of is Count:
        return random.randint(1, 4)
    if of is Angle:
        return random.uniform(0, math.pi / 2)
    if name == "feature_gradient":
        return random.choice(("exact", "paper"))
    if name == "margin":
        return 10 ** random.uniform(-3, 5)
    return 10 ** random.uniform(-1.5, 0.3)


def inputs(case: Case, draw: int) -> tuple[dict[str, Tensor], dict]:
    """Tensors by argument name and the other keywords; draws differ in their numbers alone."""
    spec = LOSSES[case.loss]
    seed = (case.seed * 1_000_003 + case.number) * DRAWS + draw
    given = make_inputs(spec, case.n, case.num_classes, case.d, torch.float64, case.labels, seed % 2**62)
    tensors, options = given
    generator = torch.Generator().manual_seed(seed % 2**62)
    features = next(name for name in FEATURES if name in tensors)
    tensors[features] = _degenerate(case, tensors[features] * case.feature_scale, generator)
    for name in TABLES:
        if name in tensors:
            tensors[name] = _of_table(case, tensors[name] * case.table_scale)
    if "groups" in options:
        rows = [(x * case.feature_scale).to(case.dtype) for x, _ in options["groups"]]
        options["groups"] = [(x, y) for x, (_, y) in zip(rows, options["groups"], strict=True)]
    if case.negative:
        tensors["y"][torch.rand(case.n, generator=generator) < 0.3] = -3
    tensors = {name: cast(name, t, case.dtype) for name, t in tensors.items()}
    tensors[features] = _laid_out(case, tensors[features])
    if tensors["y"].amax() <= torch.iinfo(case.label_dtype).max:
        tensors["y"] = tensors["y"].to(case.label_dtype)
    return tensors, options | case.how


def _degenerate(case: Case, x: Tensor, generator: torch.Generator) -> Tensor:
    n = case.n
    match case.kind:
        case "zero rows":
            x[..., ::3, :] = 0
        case "constant rows":
            x[..., ::2, :] = x[..., ::2, :1]
        case "equal rows":
            x = x[..., :1, :].expand(x.shape)
        case "duplicates":
            x = x[..., torch.arange(n) // 2, :]
        case "near duplicates":
            x = x[..., torch.arange(n) // 2, :] + 1e-3 * x
        case "offset" if case.loss not in CONTRASTIVE:
            x = x + 30 * case.feature_scale
        case "far row" if case.dtype != torch.float16 and case.loss not in CONTRASTIVE:
            x[..., 0, :] *= 1e4
        case "nan" | "inf":
            x[..., torch.randint(n, (), generator=generator), 0] = float(case.kind)
    return x


def _of_table(case: Case, table: Tensor) -> Tensor:
    if case.kind == "nan table":
        table[-1, 0] = torch.nan
    if case.kind == "far center":
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


def check(case: Case) -> str:
    """What is wrong with a case, in a line, or nothing."""
    spec = LOSSES[case.loss]
    draws = [inputs(case, draw) for draw in range(DRAWS)]
    tensors, options = draws[0]
    before = {name: t.clone() for name, t in tensors.items()}
    try:
        first, again = (evaluate(spec, tensors, options, backend=case.backend) for _ in range(2))
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    for name, value in first.items():
        if not torch.equal(value.nan_to_num(7.0), again[name].nan_to_num(7.0)):
            return f"{name}: other bits in a second run"
    for name, t in tensors.items():
        if not torch.equal(t.nan_to_num(7.0) if t.is_floating_point() else t, before[name].nan_to_num(7.0)):
            return f"{name}: changed"
    exact = [_truth(spec, *each) for each in draws]
    if not exact[0]["loss"].isfinite():
        return "loss: finite where the reference is not" if first["loss"].isfinite() else ""
    if not all(
        t.isfinite().all() for t in tensors.values() if t.is_floating_point() and t is not tensors.get("bank_z")
    ):
        return ""  # of what a bad row spoils, more is no fault
    simple = [plain(spec, *each) for each in draws]
    return _beyond(case, first, simple, exact)


def _truth(spec: LossSpec, tensors: dict, options: dict) -> dict[str, Tensor]:
    if "groups" in options:
        options = options | {"groups": [(x.double(), y) for x, y in options["groups"]]}
    return evaluate(spec, double(tensors), options, backend="reference")


def _beyond(case: Case, got: dict, simple: list[dict], exact: list[dict]) -> str:
    """The first result that is more than twice as wrong as plain PyTorch at worst, and a few roundings: of its size, of
    the terms it is the difference of, and of the change that one rounding of every input makes."""
    wide = case.dtype == torch.float64
    eps, roundings = (torch.finfo(torch.float64).eps, 64) if wide else (torch.finfo(torch.float32).eps, 4)
    sensitivity = None
    for name, right in exact[0].items():
        if got[name].shape != right.shape:
            return f"{name}: shape {tuple(got[name].shape)} for {tuple(right.shape)}"
        if not all(each[name].isfinite().all() for each in (*simple, *exact)):
            continue
        worst = max((a[name].double() - b[name]).norm().item() for a, b in zip(simple, exact, strict=True))
        own = max(torch.finfo(got[name].dtype).eps, eps)
        smallest = torch.finfo(got[name].dtype).tiny * right.numel() ** 0.5
        allowed = 2 * worst + roundings * own * right.norm().item() + smallest
        error = (got[name].double() - right).norm().item()
        if error <= allowed:
            continue
        if sensitivity is None:
            sensitivity, terms = _sensitivity(case, eps), _terms(case)
        allowed += roundings * (sensitivity[name] + eps * terms.get(name, 0.0))
        if not error <= allowed:
            return f"{name}: error {error:.3g}, allowed {allowed:.3g}, plain's {worst:.3g}, size {right.norm():.3g}"
    return ""


def _terms(case: Case) -> dict[str, float]:
    """Sizes of what a result is the difference of, by name: of a gradient that the chain rule of directions turns, the
    pull on each direction over its row's length; of a contrastive loss, logits."""
    spec, (tensors, options) = LOSSES[case.loss], inputs(case, 0)
    tensors, n = double(tensors), case.n if case.how.get("reduction") == "mean" else 1

    def turned(name: str, pull: float, centred: bool = False) -> float:
        rows = tensors[name] - centred * tensors[name].mean(-1, keepdim=True)
        lengths = rows.norm(dim=-1)
        return pull * (1 / lengths.where(lengths > 1e-6 * tensors[name].abs().max(), torch.inf)).norm().item()

    half = max(torch.finfo(case.dtype).eps / torch.finfo(torch.float32).eps, 1.0)
    if spec.family == "contrastive":
        logits = 1 / options.get("temperature", 0.1)
        return {"loss": logits * case.n / n, "dz": logits * case.n**0.5 * 4 / n}
    if spec.family == "correlation":
        k = len(tensors["e"])
        of = 4 * (case.n + k + case.num_classes) / (k * n * n)
        # Elsewhere the length of each direction is rounded; the blocked engine's sums are wide.
        coarse = case.backend != "blocked" or case.dtype == torch.float64
        return {"de": turned("e", of, True), "loss": of * k * case.n * (1 if coarse else 1e-8)}
    if spec.name == "marginal":
        # Products of half-precision directions, which plain PyTorch rounds to exactly 1.
        return {"dx": turned("x", 4 * case.n / (n * n)), "loss": (half > 1) * half * (case.n / n) ** 2}
    if spec.name in ("lmcl", "arcface"):
        pull = 2 * options.get("s", 64.0) / n
        if case.backend == "triton":  # whose products of half-precision rows are of half-precision directions
            pull *= half
        return {"dx": turned("x", pull), "dweight": turned("weight", pull * case.n)}
    if spec.name == "a-softmax":
        return {"dweight": turned("weight", 8 * tensors["x"].norm(dim=1).sum().item() / n), "dx": 8 * case.n**0.5 / n}
    if spec.family == "classifier":  # whose loss is a difference of logits
        longest = tensors["weight"].norm(dim=1).max().item()
        return {"dx": 8 * case.n**0.5 / n * longest, "loss": tensors["x"].norm(dim=1).sum().item() * longest / n}
    if spec.name == "range":  # the difference of two means, and the widest pairs
        return {"dx": 4 * (options.get("beta", 1e-4) + options.get("alpha", 5e-5)) * tensors["x"].norm().item()}
    if spec.name == "variant" and case.dtype == torch.float64:  # pushes of all rows less those of the own class
        size = max(tensors[name].norm(dim=1).max().item() for name in ("x", "centers"))
        return {"centers": 4 * case.n / options.get("eps1", 0.01) ** 2 * size}
    return {}


def _sensitivity(case: Case, eps: float) -> dict[str, float]:
    """How far each result moves where every number given moves by one rounding."""
    spec = LOSSES[case.loss]
    tensors, options = inputs(case, 0)
    exact = _truth(spec, tensors, options)
    generator, moved = torch.Generator().manual_seed(0), dict.fromkeys(exact, 0.0)
    for _ in range(3):
        nudged = {
            name: t * (1 + eps * torch.randn(t.shape, generator=generator)) if t.is_floating_point() else t
            for name, t in double(tensors).items()
        }
        for name, value in _truth(spec, nudged, options).items():
            moved[name] = max(moved[name], (value - exact[name]).norm().item())
    return moved


def failures(seed: int, numbers: range, backend: str):
    """What is wrong, a line for each case of which something is."""
    for number in numbers:
        case = draw_case(seed, number, backend)
        if wrong := check(case):
            yield f"{wrong} | {case} | {case.command}"
