"""What every random case is held to: at most twice plain PyTorch's error in the same precision, against float64."""
import os, dataclasses
import torch
from torch import Tensor

from cases import double, evaluate, plain
from fer_fast.registry import LOSSES, LossSpec
from fuzz import Case, draw_case, inputs

DRAWS = int(os.environ.get("FZ_DRAWS", 8))  # of plain PyTorch, where its error on a case itself is too small: it may be right by luck
ROUND = float(os.environ.get("FZ_ROUND", 1))
WIDE = float(os.environ.get("FZ_WIDE", 64))
REPEATED = 4  # one case of so many is computed twice


def check(case: Case) -> str:
    """What is wrong with a case, in a line, or nothing."""
    spec, (tensors, options) = LOSSES[case.loss], inputs(case, 0)
    before = {name: t.clone() for name, t in tensors.items()}
    try:
        got = evaluate(spec, tensors, options, backend=case.backend)
        again = got if case.number % REPEATED else evaluate(spec, tensors, options, backend=case.backend)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    for name, value in got.items():
        if not _same(value, again[name]):
            return f"{name}: other bits in a second run"
    for name, t in tensors.items():
        if not _same(t, before[name]):
            return f"{name}: changed"
    exact = _truth(spec, tensors, options)
    if (got["loss"].isfinite() & ~exact["loss"].isfinite()).any():
        return "loss: finite where the reference is not"
    if case.kind in ("nan", "inf") or not exact["loss"].isfinite().all():
        return ""  # of what a bad row spoils, more is no fault
    return _beyond(case, got, plain(spec, tensors, options), exact)


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) if a.is_floating_point() else torch.equal(a, b)


def _truth(spec: LossSpec, tensors: dict, options: dict) -> dict[str, Tensor]:
    if "groups" in options:
        options = options | {"groups": [(x.double(), y) for x, y in options["groups"]]}
    return evaluate(spec, double(tensors), options, backend="reference")


def _beyond(case: Case, got: dict, simple: dict, exact: dict) -> str:
    """The first result that is more than twice as wrong as plain PyTorch at worst, and a few roundings."""
    spec, worst, wrong = LOSSES[case.loss], {}, {}

    wide = case.dtype == torch.float64
    narrow = dataclasses.replace(case, dtype=torch.float32) if wide else case

    def allowed(name: str) -> float:
        dtype, right = got[name].dtype, exact[name]
        times = 3 * 2.0**-29 if wide else 2
        return times * worst[name] + ROUND*torch.finfo(dtype).eps * right.norm().item() + torch.finfo(dtype).tiny * right.numel() ** 0.5

    for name, right in exact.items():
        if got[name].shape != right.shape:
            return f"{name}: shape {tuple(got[name].shape)} for {tuple(right.shape)}"
        if not (simple[name].isfinite().all() and right.isfinite().all()):
            continue
        worst[name] = 0.0 if wide else _error(simple[name], right)
        error = _error(got[name], right)
        if not error <= allowed(name):
            wrong[name] = error
    for draw in range(0 if wide else 1, DRAWS):
        if not wrong:
            break
        given = inputs(narrow, draw)
        simple, right = plain(spec, *given), _truth(spec, *given)
        for name in list(wrong):
            error = _error(simple[name], right[name])
            worst[name] = max(worst[name], error)  # NaN is no maximum
            if wrong[name] <= allowed(name):
                del wrong[name]
    for name, error in wrong.items():
        plains, size = worst[name], exact[name].norm().item()
        return f"{name}: error {error:.3g}, allowed {allowed(name):.3g}, plain's {plains:.3g}, size {size:.3g} {wrong.keys()}"
    return ""


def _error(value: Tensor, right: Tensor) -> float:
    return (value.double() - right).norm().item()


def failures(seed: int, numbers: range, backend: str):
    """What is wrong, a line for each case of which something is."""
    for number in numbers:
        case = draw_case(seed, number, backend)
        if wrong := check(case):
            yield f"{wrong} | {case} | {case.command}"
