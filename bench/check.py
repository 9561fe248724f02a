"""Whether a contender's answer is right, asked before it is timed: against the reference in float64.

An answer may be at most twice as wrong as plain PyTorch in the same precision, plus one rounding of its dtype: the
rule of the parity tests, and it binds this library. Others get the slack of their :class:`Contender`. Errors are norms
over a whole tensor.
"""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import isfinite

import torch
from torch import Tensor

from fer_fast.registry import LossSpec

from .contenders import Contender, eager, of_backend, too_large
from .problems import DTYPES, Inputs, Problem

# Where the reference does not fit in memory, or overflows, there is no error to compare with: sums over many rows
# then get this many roundings of float32, and half-precision features a few of their own.
ROUNDINGS, HALF_ROUNDINGS = 64, 4


@dataclass(frozen=True)
class Verdict:
    """The relative error of the output that uses most of its budget, the share used, and the reason if wrong."""

    error: float
    budget_used: float
    reason: str = ""

    @property
    def right(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Truth:
    """Exact outputs of a problem's inputs, and the error allowed for each, as a share of its norm."""

    outputs: dict[str, Tensor]
    allowed: dict[str, float]
    source: str  # "reference float64" or "blocked float64"
    sizes: dict[str, float] = field(default_factory=dict)  # of what an output is the difference of, if larger

    def judge(self, contender: Contender, problem: Problem, inputs: Inputs) -> Verdict:
        """Run a contender once and hold its outputs against the truth."""
        try:
            got = contender.bind(problem, inputs)()
        except torch.OutOfMemoryError:  # no answer, and so no wrong one
            raise
        except Exception as error:  # somebody else's code: whatever it raises is its answer
            return Verdict(float("inf"), float("inf"), f"{type(error).__name__}: {first_line(error)}")
        return self.compare(got, contender.slack)

    def compare(self, got: dict[str, Tensor], slack: float) -> Verdict:
        """The verdict on outputs by name; `slack` times the budget still counts as right."""
        worst = Verdict(0.0, 0.0)
        for name, exact in self.outputs.items():
            if name not in got or got[name].shape != exact.shape:
                return Verdict(float("inf"), float("inf"), f"{name} is missing or of another shape")
            error = _relative_error(got[name], exact)
            size = max(1.0, self.sizes.get(name, 0.0) / (exact.norm().item() or 1.0))
            allowed = self.allowed[name] + size * torch.finfo(got[name].dtype).eps
            used = error / allowed
            # `not <=`: an error that is NaN is no pass.
            reason = "" if used <= slack else f"{name}: error {error:.2g}, allowed {slack * allowed:.2g}"
            if reason or used > worst.budget_used:
                worst = Verdict(error, used, reason)
            if reason:
                break
        return worst


def truth(problem: Problem, inputs: Inputs, draws: int = 0) -> Truth:
    """The answer to these inputs in float64, and what plain PyTorch makes of them in their own dtype.

    Its error on so many further draws counts too: a single number is often right by luck.

    Where the reference does not fit, the blocked engines in float64 stand in: other code than a Triton kernel, but on
    a CPU the same code as what is judged, so that only rounding is checked there; smaller shapes check the formula.
    """
    device = inputs.tensors["y"].device
    sizes = cancelling_terms(problem.spec, problem.shape.n)
    if not too_large(problem, device):
        with suppress(torch.OutOfMemoryError):  # what it takes was an estimate
            exact, errors = _plain_errors(problem, inputs)
            errors = [errors, *(_plain_errors(problem, problem.inputs(device, ~draw))[1] for draw in range(draws))]
            worst = {name: max(of[name] for of in errors) for name in exact}
            allowed = {name: 2 * error if isfinite(error) else _roundings(problem) for name, error in worst.items()}
            return Truth(exact, allowed, "reference float64", sizes)
    exact = of_backend(problem, inputs.to(torch.float64), "blocked")()
    return Truth(exact, dict.fromkeys(exact, _roundings(problem)), "blocked float64", sizes)


def _roundings(problem: Problem) -> float:
    dtype = DTYPES[problem.dtype]
    half = HALF_ROUNDINGS * torch.finfo(dtype).eps if dtype.itemsize == 2 else 0.0
    return ROUNDINGS * torch.finfo(torch.float32).eps + half


def _plain_errors(problem: Problem, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The answer in float64, and the relative errors of plain PyTorch in the problem's dtype."""
    exact = eager(replace(problem, dtype="float32"), inputs.to(torch.float64))()
    plain = eager(problem, inputs.to())()
    return exact, {name: _relative_error(plain[name], value) for name, value in exact.items()}


def cancelling_terms(spec: LossSpec, n: int, reduction: str = "mean") -> dict[str, float]:
    """Sizes of what a result is the difference of, on n rows, at the temperature τ where there is one.

    A contrastive loss is log D less a logit, each of size 1/τ; its gradient is push less pull, each of size 1/τ a row,
    and the push carries the rounding of log D. The gradient of marginal loss with respect to a direction has n terms
    of size 4/(n²-n); the chain rule takes away what lies along the direction.
    """
    if spec.name == "marginal":
        return {"dx": 4 * n**0.5 * (1 / n if reduction == "mean" else n - 1)}
    if spec.family != "contrastive":
        return {}
    rows, (temperature,) = n**0.5 / (n if reduction == "mean" else 1), spec.params()
    largest = 1 / temperature
    return {"loss": 2 * largest * (1 if reduction == "mean" else n), "dz": (2 + largest) * largest * rows}


def _relative_error(got: Tensor, exact: Tensor) -> float:
    """‖got - exact‖ / ‖exact‖; against zero, 0 if it is met and inf if not."""
    error, size = (got.double() - exact).norm().item(), exact.norm().item()
    if size == 0:
        return 0.0 if error == 0 else float("inf")
    return error / size


def first_line(error: Exception) -> str:
    """What an exception says, without the rest."""
    return (str(error).strip().splitlines() or ["no message"])[0]
