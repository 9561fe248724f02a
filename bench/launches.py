"""`python -m bench launches`: what a step of a loss costs the host, launched for a chip that is not there.

Triton's own launch path runs to its end: it compiles each kernel from the arguments of a real call, as the first step
on a GPU does, and hands it to a driver that does nothing. What is left of a step is the host's part of it, which at
batch 64 is most of it. Beside it stands plain PyTorch on one row, where little but the host's part is left either; its
launches, tens to a step, would come on top.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

from fer_fast import checks, dispatch, functional, kinds
from fer_fast.cli.parser import Parser
from fer_fast.registry import LOSSES, find

from .audit_resources import CHIPS, engine_module, engines
from .child import lines
from .measure import in_turns
from .problems import Problem, Shape
from .table import seconds_text

BATCH = Shape(n=64, d=512, classes=7, k=7, bank=256)
SECONDS = 0.5  # of timing, each loss


@dataclass
class LaunchRow:
    """One loss at one shape: kernels launched and compiled, by name, and the host's seconds of a step, median."""

    loss: str
    shape: str
    launches: dict[str, int]
    compiled: int
    seconds: float | None = None
    eager_seconds: float | None = None  # of plain PyTorch on one row


def run(argv: list[str]) -> int:
    """Print a line for each loss."""
    parser = Parser(prog="fer-fast bench launches", description=__doc__)
    parser.add_argument("--loss", metavar="NAME", nargs="+", default=list(LOSSES), help="losses (default: all)")
    parser.add_argument("--chip", choices=CHIPS, default="sm90", help="compile for this chip (default: sm90)")
    given = parser.parse_args(argv)
    names = [find(name).name for name in given.loss]
    with Console(stderr=True).status("compiling every kernel of every loss"):
        found = rows(names, [BATCH], given.chip, timed=True)
    Console(highlight=False).print(table(found))
    return 0


def rows(
    losses: Iterable[str], shapes: list[Shape], chip: str = "sm90", *, labels: str = "int64", timed: bool = False
) -> list[LaunchRow]:
    """A row for each loss and shape, from a process whose Triton does not interpret."""
    asked = {"losses": list(losses), "shapes": [asdict(shape) for shape in shapes], "chip": chip}
    asked |= {"labels": labels, "timed": timed}
    return [LaunchRow(**row) for row in lines(__name__, json.dumps(asked), TRITON_INTERPRET="0")]


def table(found: list[LaunchRow]) -> Table:
    """One line a loss."""
    result = Table("loss", title=f"host's part of a step, {BATCH}")
    for name in ("launches", "ours", "eager, one row", "ratio"):
        result.add_column(name, justify="right")
    for row in found:
        times = (seconds_text(row.seconds), seconds_text(row.eager_seconds), f"{row.eager_seconds / row.seconds:.2f}×")
        result.add_row(row.loss, str(sum(row.launches.values())), *times)
    return result


class AbsentChip:
    """A driver of Triton's for a chip that is not there: loads and launches nothing, and counts."""

    def __init__(self, chip: str):
        from triton.backends.compiler import GPUTarget

        self.target, self.utils, self.family = GPUTarget(*CHIPS[chip].target), self, CHIPS[chip].family
        self.launches, self.compiled = Counter(), 0

    def launcher_cls(self, source, metadata) -> Callable:
        self.compiled += 1
        name, launches = source.fn.__name__, self.launches

        def launch(*_) -> None:
            launches[name] += 1

        return launch

    def load_binary(self, *_) -> tuple[int, int, int, int, int]:
        return 0, 0, 0, 0, 1024  # module, function, registers, spills, most threads

    def unload_module(self, _) -> None:
        """Nothing was loaded."""

    def get_device_properties(self, _) -> dict[str, int]:
        return {"max_shared_mem": 1 << 30, "multiprocessor_count": 132}

    def get_current_target(self):
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _) -> int:
        return 0


@contextmanager
def launching_on(chip: AbsentChip, processors: int = 132):
    """Kernels go to `chip`, in its tiles, with the tensors of the CPU; labels are not looked at, as on a GPU.

    `processors` are how many multiprocessors engines see that split their work by them.
    """
    from triton.runtime import driver

    driver.set_active(chip)
    with ExitStack() as patched:
        kinds.forget()
        patched.callback(kinds.forget)
        patched.enter_context(patch.object(dispatch, "triton_runs_on", lambda _: True))
        patched.enter_context(patch.object(dispatch, "interpreter_fault", lambda: ""))  # nothing is interpreted
        patched.enter_context(patch.object(checks, "readable", lambda _: False))
        for launcher in (engine_module(engine, "launch") for engine in engines()):
            for name, answer in (("chip", chip.family), ("processors", processors)):
                if hasattr(launcher, name):
                    patched.enter_context(patch.object(launcher, name, lambda _, answer=answer: answer))
        yield


def measure(chip: AbsentChip, loss: str, shape: Shape, *, labels: str, timed: bool) -> LaunchRow:
    """Launch one step; then, if `timed`, step after step, in turns with plain PyTorch."""
    if loss in ("selfcon", "supcon"):
        shape = replace(shape, bank=0, n=max(2, shape.n))
    chip.launches.clear()
    before, step = chip.compiled, _step(Problem(loss, shape), "triton", labels)
    step()
    row = LaunchRow(loss, str(shape), dict(chip.launches), chip.compiled - before)
    if timed:
        eager = _step(Problem(loss, replace(shape, n=2 if loss == "selfcon" else 1)), "reference", labels)
        times = in_turns([[step], [eager]], torch.device("cpu"), SECONDS)
        row.seconds, row.eager_seconds = (each.q50 for each in times)
    return row


def _step(problem: Problem, backend: str, labels: str) -> Callable[[], None]:
    inputs = problem.inputs(torch.device("cpu"))
    of = getattr(torch, labels)
    inputs.tensors = {name: t if t.is_floating_point() else t.to(of) for name, t in inputs.tensors.items()}
    function, arguments = getattr(functional, problem.spec.function), inputs.arguments
    leaves = list(inputs.leaves.values())

    def step() -> None:
        loss = function(**arguments, backend=backend)
        torch.autograd.grad(loss, leaves)

    return step


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = json.loads(sys.argv[1])
    chip = AbsentChip(asked["chip"])
    with launching_on(chip):
        for name in asked["losses"]:
            for shape in asked["shapes"]:
                row = measure(chip, name, Shape(**shape), labels=asked["labels"], timed=asked["timed"])
                print(json.dumps(asdict(row)), flush=True)
