"""What every random case is held to: at most twice plain PyTorch's error in the same precision, against float64."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from cases import double, evaluate, plain
from fer_fast.registry import LOSSES, LossSpec
from fuzz import Case, absent, draw_case, inputs

DRAWS = 16  # of plain PyTorch at most, where its error on the case itself is too small: one may be right by luck
REPEATED = 4  # one case of so many is computed twice
POISONED = 2  # of so many cases one has memory as others left it: numbers that pass for places, too
ALONG = 4  # roundings that the chain rule leaves of a pull along a direction: of its squares' sum, of the root of that,
# of the direction, and of the pull's part along it


def check(case: Case) -> str:
    """What is wrong with a case, in a line, or nothing."""
    spec, (tensors, options) = LOSSES[case.loss], inputs(replace(case, device="cpu"), 0)
    given, how = inputs(case, 0) if case.device != "cpu" else (tensors, options)
    before = {name: t.clone() for name, t in given.items()}
    try:
        with _poisoned() if case.number % POISONED else nullcontext():
            got = evaluate(spec, given, how, backend=case.backend)
            again = got if case.number % REPEATED else evaluate(spec, given, how, backend=case.backend)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    for name, value in got.items():
        if not _same(value, again[name]):
            return f"{name}: other bits in a second run"
    for name, t in given.items():
        if not _same(t, before[name]):
            return f"{name}: changed"
    got = {name: t.cpu() for name, t in got.items()}
    exact = _truth(spec, tensors, options)
    spoilt = got["loss"].isfinite() & ~exact["loss"].isfinite()
    out = absent(case, tensors)  # which a bad row of the table need not spoil
    if (spoilt & ~out if spoilt.ndim else spoilt & ~(out.any() & (case.kind == "nan table"))).any():
        return "loss: finite where the reference is not"
    if case.kind in ("nan", "inf") or not exact["loss"].isfinite().all():
        return ""  # of what a bad row spoils, more is no fault
    return _beyond(case, got, exact)


@contextmanager
def _poisoned() -> Iterator[None]:
    """New memory holds NaN, or the largest integer, so that what nobody wrote does not pass for a number."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) if a.is_floating_point() else torch.equal(a, b)


def _truth(spec: LossSpec, tensors: dict, options: dict) -> dict[str, Tensor]:
    if "groups" in options:
        options = options | {"groups": [(x.double(), y) for x, y in options["groups"]]}
    return evaluate(spec, double(tensors), options, backend="reference")


def _beyond(case: Case, got: dict, exact: dict) -> str:
    """The first result that is more than twice as wrong as plain PyTorch is at worst, and one rounding.

    In float64 plain PyTorch is the truth itself: there its errors in float32 count, in float64's roundings, and once
    more, as the truth's; no sum over rows is wider, and their order leaves as many roundings as the root of their
    number. Draws after the first are looked at only where it does not do, what :func:`cancelling` says only where all
    do not.
    """
    spec, wide = LOSSES[case.loss], case.dtype == torch.float64
    narrow = replace(case, device="cpu", dtype=torch.float32 if wide else case.dtype)
    times = 3 * torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps if wide else 2
    roundings = case.n**0.5 if wide else 1
    allowed, wrong = {}, {}
    for name, right in exact.items():
        if got[name].shape != right.shape:
            return f"{name}: shape {tuple(got[name].shape)} for {tuple(right.shape)}"
        limits = torch.finfo(got[name].dtype)
        if right.isfinite().all():
            wrong[name] = _error(got[name], right)
            allowed[name] = roundings * limits.eps * right.norm().item() + limits.tiny * right.numel() ** 0.5
    worst = dict.fromkeys(wrong, 0.0)
    for draw in range(DRAWS):
        given = inputs(narrow, draw)
        simple, right = plain(spec, *given), exact if draw == 0 and not wide else _truth(spec, *given)
        if draw == 0 and not simple["loss"].isfinite().all():
            return ""
        for name in list(wrong):
            error = _error(simple[name], right[name])
            worst[name] = max(worst[name], error)  # NaN is no maximum
            if wrong[name] <= allowed[name] + times * worst[name] or (draw == 0 and not simple[name].isfinite().all()):
                del wrong[name]
        if not wrong:
            return ""
    terms = cancelling(case)
    for name, error in wrong.items():
        most, size = allowed[name] + times * worst[name] + roundings * terms.get(name, 0.0), exact[name].norm()
        if not error <= most:
            return f"{name}: error {error:.3g}, allowed {most:.3g}, plain's {worst[name]:.3g}, size {size:.3g}"
    return ""


def _error(value: Tensor, right: Tensor) -> float:
    return (value.double() - right).norm().item()


def cancelling(case: Case) -> dict[str, float]:
    """Roundings of what a result is the difference of, by name, where plain PyTorch takes no such difference, or takes
    it of numbers that are the same by luck: of few rows, of equal ones, in one dimension."""
    of = _CANCELLING.get(case.loss) or _CANCELLING.get(LOSSES[case.loss].family)
    if of is None:
        return {}
    tensors, options = inputs(replace(case, device="cpu"), 0)
    dtype = torch.promote_types(case.dtype, torch.float32)
    # Triton multiplies directions, and what pulls them, in the dtype of the features.
    products = case.dtype if case.backend == "triton" else dtype
    return of(case, double(tensors), options, torch.finfo(dtype).eps, torch.finfo(products).eps)


def _of_classifier(case: Case, tensors: dict, options: dict, rounding: float, products: float) -> dict[str, float]:
    """A loss is w_i (log Σ_j e^{f_ij} - Σ_j t_ij f_ij), of two numbers up to log C + max |f| that are rounded, and its
    derivative by a logit is w_i (p_ij - t_ij), of two up to 1. Where rows or class weights count as directions, the
    chain rule leaves as much of what pulls along them: see :func:`_of_correlation`. Sums over rows leave as many
    roundings as half the root of their number. As autocast does, Triton rounds what pulls weights to 16 bits, which
    costs plain PyTorch nothing where it is ±1 after division by the sum of the rows' weights. ArcFace's sin θ makes of
    a rounding of cos θ its root, where θ is near 0 or π."""
    x, weight, s = tensors["x"].nan_to_num(0, 0, 0), tensors["weight"], 1.0
    unit_x, unit_weight = case.loss in ("lmcl", "arcface"), case.loss in ("lmcl", "arcface", "a-softmax")
    lengths, widths = x.norm(dim=1), weight.norm(dim=1)
    if unit_x:
        s = float(tensors.get("s", options.get("s", LOSSES[case.loss].params().s)))
    weights, off = _weights(case, tensors), torch.zeros(case.n)
    logits = s if unit_x else lengths * (1.0 if unit_weight else widths.max())
    if case.loss == "arcface":
        cosines = (x @ weight.mT / lengths[:, None] / widths).nan_to_num().gather(1, _targets(tensors["y"]))[:, 0]
        sines = (1 - cosines.square()).clamp(min=0).sqrt()
        off = s * math.sin(options.get("m", 0.5)) * 2 * products / (sines + (2 * products) ** 0.5)
    shares = s * _pulled(case, weights) * (1 + off / (2 * rounding))
    by_rows, by_weights = 2 * shares * (1.0 if unit_weight else widths.max()), 2 * (shares * lengths).sum()
    if unit_x:
        by_rows, by_weights = ALONG * shares / lengths.where(lengths > 0, torch.inf), 2 * shares.sum()
    if unit_weight:
        by_weights = ALONG / 2 * by_weights / widths.where(widths > 0, torch.inf)
    summed = 1 + case.n**0.5 / 4
    of_products = unit_weight or case.loss in ("softmax", "weighted-softmax")  # kernels/class_table/rows.py: ROUNDED
    return {
        "dx": (products if unit_x else rounding) * by_rows.norm().item(),
        "dweight": summed * (products if of_products else rounding) * by_weights.norm().item(),
        "dbias": summed * 2 * rounding * shares.sum().item(),
        "ds": summed * 2 * rounding * shares.sum().item() / s,
        "loss": _total(case, (off + 2 * rounding * (logits + math.log(case.num_classes))) * weights),
    }


def _targets(y: Tensor) -> Tensor:
    """The class with a margin, (n, 1), of labels that are classes or shares of them."""
    return (y.argmax(1) if y.is_floating_point() else y.long().clamp(min=0))[:, None]


def _of_island(case: Case, tensors: dict, options: dict, rounding: float, products: float) -> dict[str, float]:
    """Each center is a direction that the mean of the others pulls by up to α λ₁: see :func:`_of_correlation`."""
    lengths = tensors["centers"].norm(dim=1)
    params = LOSSES["island"].params(**{key: options[key] for key in ("lambda1", "alpha") if key in options})
    pulls = params.alpha * params.lambda1 / lengths.where(lengths > 0, torch.inf)
    return {"centers": ALONG * rounding * pulls.norm().item()}


def _of_contrastive(case: Case, tensors: dict, options: dict, rounding: float, products: float) -> dict[str, float]:
    """log D, up to 1/τ and the log of the number of keys, and the mean logit of the positives are rounded and
    subtracted. Anchor i pulls rows by w_i (p_ia - t_ia)/τ, where p is exp of such a difference; a row is pulled as a
    key, too, by columns of p, whose sums are 1 in the mean. Where rows are normalised they are rounded to their dtype
    before."""
    z, temperature = tensors["z"], float(tensors.get("temperature", options.get("temperature", 0.1)))
    lengths = torch.ones(case.n)
    if options["normalize"]:
        rounding = products = torch.finfo(case.dtype).eps
        lengths = z.norm(dim=1)
    weights = _weights(case, tensors)
    pulled = _pulled(case, weights)
    pulls = (pulled + pulled.mean()) / lengths.where(lengths > 0, torch.inf)
    of_logits = 2 * rounding * (1 / temperature + math.log(case.n + len(tensors.get("bank_y", ()))))
    return {
        "loss": of_logits * _total(case, weights),
        "dz": max(2 * products, of_logits) / temperature * pulls.norm().item(),
        "dtemperature": of_logits / temperature**2 * pulled.sum().item(),
    }


def _weights(case: Case, tensors: dict) -> Tensor:
    """What the loss of each row counts for: (n,)."""
    weights = tensors.get("sample_weights", torch.ones(case.n, dtype=torch.float64))
    weights = weights.masked_fill(absent(case, tensors), 0)
    if "class_weights" in tensors:
        of_classes = tensors["class_weights"]
        weights = weights * (of_classes.max() if case.soft else of_classes[tensors["y"].clamp(min=0).long()])
    return weights / weights.sum().clamp(min=1e-300) if case.how["reduction"] == "mean" else weights


def _pulled(case: Case, weights: Tensor) -> Tensor:
    """How the losses of rows are pulled, where they are several by :func:`cases.evaluate`: (n,)."""
    return weights * torch.linspace(-1, 2, case.n).abs() if case.how["reduction"] == "none" else weights


def _total(case: Case, of_rows: Tensor) -> float:
    """How far off the loss is where those of rows are (n,)."""
    return (of_rows.norm() if case.how["reduction"] == "none" else of_rows.sum()).item()


def _of_correlation(case: Case, tensors: dict, options: dict, rounding: float, products: float) -> dict[str, float]:
    """Losses are the difference of weights of pairs and of weighted correlations, all up to 1. The chain rule takes off
    what pulls a direction along itself, of which some roundings are left, over the row's length. Triton multiplies rows
    of 16 bits as they are: with their means, which count in a rounding."""
    e = tensors["e"].nan_to_num(0, 0, 0)
    if products > rounding:
        rounding *= (e.norm(dim=-1) * _over_lengths(e)).mean().clamp(min=1).item()
    (k, n, _), classes = e.shape, case.num_classes
    difficulty = tensors.get("class_difficulty", torch.tensor(0.5)).max().item()
    pulls, loss = 0.0, 0.0
    rows = _over_lengths(e)
    if case.loss in ("nfd", "fd", "ad-corre"):  # 8 w_c s_c - 2 w_c U - 2 W
        divisor = k * n * n if options["reduction"] == "mean" else 1
        pulls, loss = pulls + 4 * difficulty * n / divisor * rows.norm(), loss + 2 * difficulty * k * n * n / divisor
    if case.loss in ("ed", "ad-corre"):
        divisor, weights = k * k if options["reduction"] == "mean" else 1, _weights(case, tensors)
        pulls = pulls + 2 * k / divisor * (rows * _pulled(case, weights)).norm()
        loss = loss + k * k / divisor * _total(case, weights)
    if case.loss in ("md", "ad-corre"):
        divisor = k * classes * classes if options["reduction"] == "mean" else 1
        counts = torch.zeros(classes, dtype=e.dtype).index_add_(0, tensors["y"].long(), torch.ones(n, dtype=e.dtype))
        means = torch.zeros(k, classes, e.shape[2], dtype=e.dtype).index_add_(1, tensors["y"].long(), e)
        means = _over_lengths(means / counts.clamp(min=1)[:, None]) / counts.clamp(min=1).sqrt()
        pulls, loss = pulls + 2 * classes / divisor * means.norm(), loss + k * classes * classes / divisor
    return {"de": ALONG * rounding * float(pulls), "loss": 2 * rounding * loss}


def _over_lengths(rows: Tensor) -> Tensor:
    """1 / ‖x - x̄‖ of rows (..., d), 0 where they are constant: (...,)."""
    lengths = (rows - rows.mean(-1, keepdim=True)).norm(dim=-1)
    return torch.where(lengths > 1e-12 * rows.abs().amax(), 1 / lengths, 0)


def _of_marginal(case: Case, tensors: dict, options: dict, rounding: float, products: float) -> dict[str, float]:
    """A pair's distance is the difference of 2 and 2 x̂_i·x̂_j, a sum of d numbers that may be the same. It pulls a
    direction by 2, from both sides, of which there are n - 1: see :func:`_of_correlation`."""
    x = tensors["x"][tensors["y"] >= 0]
    n, d = x.shape
    pairs = 1 if options["reduction"] == "mean" else n * n - n
    lengths = x.norm(dim=1)
    pulls = 4 * pairs / max(n, 1) / lengths.where(lengths > 0, torch.inf)
    return {"dx": ALONG * products * pulls.norm().item(), "loss": (2 * products + d * rounding) * pairs}


def _of_range(case: Case, tensors: dict, options: dict, rounding: float, products: float) -> dict[str, float]:
    """The two nearest class means, each rounded, pull their rows by 2β of their difference."""
    beta, size = (
        options.get("beta", LOSSES["range"].params().beta),
        tensors["x"].norm(dim=1).nan_to_num(0, 0, 0).max().item(),
    )
    return {"dx": 2 * beta * 2 * rounding * size}


_CANCELLING = {
    "classifier": _of_classifier,
    "island": _of_island,
    "correlation": _of_correlation,
    "marginal": _of_marginal,
    "range": _of_range,
    "contrastive": _of_contrastive,
}


def failures(seed: int, numbers: range, backend: str, device: str = "cpu"):
    """What is wrong, a line for each case of which something is."""
    for number in numbers:
        case = draw_case(seed, number, backend, device)
        if wrong := check(case):
            yield f"{wrong} | {case} | {case.command}"
