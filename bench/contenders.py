"""Who is measured: this library, its plain PyTorch reference, that reference compiled, and other people's packages.

A contender binds one set of inputs and gives back a step: a call without arguments that computes the loss and its
gradients through autograd, as a user's training step does, and returns them by name.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from inspect import signature

import torch
from torch import Tensor

from fer_fast import dispatch, functional

from .problems import DTYPES, Inputs, Problem

Step = Callable[[], dict[str, Tensor]]

# Twice plain PyTorch's error is this library's own bound. Others promised nothing, and an answer with more rounding is
# no other function: they are timed up to this many times the bound, and their rows carry the error.
OTHERS_SLACK = 8.0

REFERENCE_LIMIT = 0.4  # of the memory that is free: what a contender that holds all pairs may be expected to take


@dataclass(frozen=True)
class Contender:
    """Somebody's way to compute a loss.

    `offers` says whether it has the same mathematics at all (without a `bind` it never has); `unavailable` and
    `refuses` why it cannot run on this device, or not this problem, or "". `backend` is what runs, for the rows;
    `package` is whose version to note.
    """

    name: str
    bind: Callable[[Problem, Inputs], Step] | None
    offers: Callable[[Problem], bool] = lambda problem: True
    unavailable: Callable[[torch.device], str] = lambda device: ""
    refuses: Callable[[Problem, torch.device], str] = lambda problem, device: ""
    backend: Callable[[torch.device], str] = lambda device: ""
    package: str = ""
    missing: str = ""  # what it has no equivalent of, in words
    slack: float = 1.0  # times the error budget at which its answer still counts as the same function

    @property
    def version(self) -> str:
        return installed(self.package) or "" if self.package else ""


def installed(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def step(loss: Callable[[], Tensor | tuple[Tensor, Tensor | None]], inputs: Inputs) -> Step:
    """Forward and backward of `loss` with respect to the leaves of the inputs.

    Without leaves it is the forward alone. A loss moves its centers in place, or gives where they move as a second
    value, stored after the backward. Losses of rows are weighed from -1 to 1.
    """
    leaves, centers = inputs.leaves, inputs.tensors.get("centers")
    names, tensors = ["loss", *(f"d{name}" for name in leaves)], list(leaves.values())
    state = {} if centers is None else {"centers": centers}

    def run() -> dict[str, Tensor]:
        result = loss()
        value, moved = result if isinstance(result, tuple) else (result, None)
        weights = torch.linspace(-1, 1, len(value), dtype=value.dtype, device=value.device) if value.ndim else None
        gradients = torch.autograd.grad(value, tensors, weights) if tensors else ()
        if moved is not None:
            centers.copy_(moved)
        return dict(zip(names, (value.detach(), *gradients), strict=True)) | state

    return run


def of_backend(problem: Problem, inputs: Inputs, backend: str) -> Step:
    """The library's own function on one backend."""
    function, arguments = getattr(functional, problem.spec.function), inputs.arguments
    return step(lambda: function(**arguments, backend=backend), inputs)


def eager(problem: Problem, inputs: Inputs) -> Step:
    """The reference, under autocast for features in half precision."""
    function, arguments = getattr(functional, problem.spec.function), inputs.arguments
    autocast = autocast_for(problem, inputs)

    def loss() -> Tensor:
        with autocast:
            return function(**arguments, backend="reference")

    return step(loss, inputs)


def compiled(problem: Problem, inputs: Inputs) -> Step:
    """`torch.compile` of the reference, loss and moved centers in one graph, so that it may share work between them.

    The centers are stored after the backward, which reads the old ones.
    """
    spec, autocast = problem.spec, autocast_for(problem, inputs)
    given = inputs.tensors | inputs.options
    loss_given = _taken(spec.reference, given)
    update_given = _taken(spec.update, given) if spec.update else None

    @torch.compile
    def graph(loss_given: dict, update_given: dict | None) -> tuple[Tensor, Tensor | None]:
        loss = spec.reference(**loss_given)
        with torch.no_grad():
            return loss, spec.update(**update_given) if update_given else None

    def loss() -> tuple[Tensor, Tensor | None]:
        with autocast:
            return graph(loss_given, update_given)

    return step(loss, inputs)


def _taken(function: Callable, given: dict) -> dict:
    """Those of the given arguments that a function has."""
    return {name: given[name] for name in signature(function).parameters if name in given}


def autocast_for(problem: Problem, inputs: Inputs) -> AbstractContextManager:
    """Autocast to the features' dtype where it is a half one: what plain PyTorch in that precision means."""
    dtype = DTYPES[problem.dtype]
    device = inputs.tensors["y"].device.type
    return torch.autocast(device, dtype) if dtype in (torch.float16, torch.bfloat16) else nullcontext()


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had: on the device, or of the machine."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, for itself
        return torch.cuda.mem_get_info(device)[0] + kept
    return _meminfo().get("MemAvailable", 8 * 2**30)


def _meminfo() -> dict[str, int]:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    except OSError:  # not Linux
        return {}


def too_large(problem: Problem, device: torch.device) -> str:
    """Why a contender that holds every pair, or every sample beside every center, cannot run; or ""."""
    needed, free = problem.eager_bytes, free_bytes(device)
    return "" if needed <= REFERENCE_LIMIT * free else f"would need about {needed / 2**30:.0f} GiB"


FER_FAST = Contender(
    "fer_fast",
    lambda problem, inputs: of_backend(problem, inputs, "auto"),
    backend=lambda device: dispatch.resolve("auto", device),
    package="fer-fast",
)
EAGER = Contender("eager", eager, refuses=too_large, backend=lambda device: "reference", package="torch")
COMPILED = Contender(
    "compiled",
    compiled,
    refuses=too_large,
    backend=lambda device: "inductor",
    package="torch",
    slack=OTHERS_SLACK,
)
