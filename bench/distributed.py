"""``fer-fast bench distributed``: a training step of each loss over processes, in time and in bytes that go round.

Each of R processes has its share of one batch, and the loss is that of all rows. Beside it stands what is written
without it: everything gathered, and plain PyTorch on the whole batch (`backend="reference"` over a process group). Both
answers are held against one process that has the whole batch before anything is timed. Bytes are what each collective
of a step gives a process, counted, beside those that the loss's row in the registry foretells.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fer_fast import functional
from fer_fast.cli.parser import Parser
from fer_fast.communication import Batch
from fer_fast.distributed import collectives
from fer_fast.errors import InputError
from fer_fast.registry import LOSSES, find

from .check import first_line
from .problems import Inputs, Problem, Shape
from .table import seconds_text

SHAPE = Shape(n=128, d=512, classes=7, k=7)
OF_ROWS = {"x": 0, "z": 0, "e": 1, "y": 0}  # the dimension that counts rows
REPEATS, MOST_STEPS = 7, 200


@dataclass
class SharedRow:
    """One loss over some processes: seconds of a step, median, bytes that went round, and the largest error."""

    loss: str
    processes: int
    shape: str
    backend: str
    seconds: float
    gathered_seconds: float
    predicted: list[int]
    counted: list[int]
    gathered_bytes: list[int]
    error: float


def run(argv: list[str]) -> int:
    """Print a line for each loss and number of processes."""
    parser = Parser(prog="fer-fast bench distributed", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--loss", metavar="NAME", action="append", default=[], help="one loss (may be repeated)")
    parser.add_argument("--processes", metavar="R,R", default="2,4", help="how many, in turn (default: 2,4)")
    parser.add_argument("--shape", metavar="n=128,d=512", default="", help=f"of the whole batch (default: {SHAPE})")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="gloo or NCCL (default: GPUs if there are enough)")
    parser.add_argument("--seconds", metavar="S", type=float, default=1.0, help="of timing, each loss (default: 1)")
    parser.add_argument("--out", metavar="FILE", help="append the rows to a file, one JSON object a line")
    given = parser.parse_args(argv)
    names = [find(name).name for name in given.loss] or list(LOSSES)
    shape = SHAPE.with_(given.shape) if given.shape else SHAPE
    found: list[SharedRow] = []
    with Console(stderr=True).status("") as spinner:
        for size in _sizes(given.processes):
            device = _device(given.device, size)
            spinner.update(f"{size} processes on {device}")
            found += rows(names, shape, size, device, given.seconds)
    Console(highlight=False).print(table(found, shape))
    if given.out:
        with Path(given.out).open("a") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in found)
    return 0


def _sizes(text: str) -> list[int]:
    if not all(part.isdigit() and int(part) > 0 for part in text.split(",")):
        raise InputError(f"--processes: {text!r} is not numbers above zero with commas between them")
    return [int(part) for part in text.split(",")]


def _device(asked: str | None, size: int) -> str:
    """One GPU a process, or the CPU."""
    enough = torch.cuda.device_count() >= size
    if asked == "cuda" and not enough:
        raise InputError(f"--device cuda: {size} processes take as many GPUs; there are {torch.cuda.device_count()}")
    return asked or ("cuda" if enough else "cpu")


def table(found: list[SharedRow], shape: Shape) -> Table:
    """One line a loss and number of processes."""
    title = f"a step over R processes, {shape} in all"
    result = Table("loss", box=None, pad_edge=False, header_style="bold", title=title)  # whole in 80 columns
    for name in ("R", "ours", "gather", "ratio", "bytes", "foretold", "gather's"):
        result.add_column(name, justify="right", no_wrap=True)
    result.columns[0].no_wrap = True
    for row in found:
        times = seconds_text(row.seconds), seconds_text(row.gathered_seconds)
        ratio = f"{row.gathered_seconds / row.seconds:.1f}×"
        foretold = "=" if row.predicted == row.counted else f"{sum(row.predicted):,}"
        numbers = f"{sum(row.counted):,}", foretold, f"{sum(row.gathered_bytes):,}"
        result.add_row(row.loss, str(row.processes), *times, ratio, *numbers)
    return result


def rows(losses: list[str], shape: Shape, size: int, device: str, seconds: float) -> list[SharedRow]:
    """A row for each loss, from processes of their own."""
    context = get_context("spawn")
    with TemporaryDirectory() as folder:
        asked = losses, asdict(shape), size, device, seconds, folder
        processes = [context.Process(target=_serve, args=(rank, *asked), daemon=True) for rank in range(size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise InputError(f"{size} processes: one ended with status {max(p.exitcode for p in processes)}")
        return [SharedRow(**json.loads(line)) for line in Path(folder, "rows").read_text().splitlines()]


def _serve(rank: int, losses: list[str], shape: dict, size: int, device: str, seconds: float, folder: str) -> None:
    import torch.distributed as dist

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // size))
    if device == "cuda":
        torch.cuda.set_device(rank)
    where = {"init_method": f"file://{folder}/store", "rank": rank, "world_size": size}
    dist.init_process_group("nccl" if device == "cuda" else "gloo", **where)
    for loss in losses:
        try:
            row = measure(Problem(loss, Shape(**shape)), torch.device(device), seconds)
        except Exception as error:
            print(f"fer-fast: {loss}: {first_line(error)}", file=sys.stderr)
            os._exit(1)
        if rank == 0:
            with Path(folder, "rows").open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    dist.destroy_process_group()


def measure(problem: Problem, device: torch.device, seconds: float) -> SharedRow:
    """What a loss takes on this process and the others of the default group."""
    import torch.distributed as dist

    rank, size = dist.get_rank(), dist.get_world_size()
    whole = problem.inputs(device)
    own = _share(problem, whole, rank, size)
    step = partial(_step, problem, own, {"process_group": dist.group.WORLD})
    gathered = partial(_step, problem, own, {"process_group": dist.group.WORLD, "backend": "reference"})
    worst = torch.tensor(max(_error(problem, whole, own, of, rank, size) for of in (step, gathered)), device=device)
    dist.all_reduce(worst, dist.ReduceOp.MAX)
    if not (error := worst.item()) < 1e-3:
        raise RuntimeError(f"{problem.loss}: wrong by {error:.1e}, and not timed")
    times = _in_turns([step, gathered], device, seconds)
    sent = [_counted(of) for of in (step, gathered)]
    batch = Batch(size, len(own.tensors["y"]), problem.shape.classes, problem.shape.d, problem.shape.k)
    batch = batch._replace(bias="bias" in whole.tensors)
    predicted = problem.spec.communication.bytes(batch)
    backend = "triton" if device.type == "cuda" else "blocked"
    return SharedRow(problem.loss, size, str(problem.shape), backend, *times, predicted, *sent, error)


def _part(problem: Problem, name: str, t: Tensor, rank: int, size: int) -> Tensor:
    """The rows of a process; of SelfCon's both views, which lie half a batch apart."""
    if name not in OF_ROWS:
        return t
    if problem.loss == "selfcon":
        return t.unflatten(0, (2, -1)).tensor_split(size, 1)[rank].flatten(0, 1)
    return t.tensor_split(size, OF_ROWS[name])[rank]


def _share(problem: Problem, whole: Inputs, rank: int, size: int) -> Inputs:
    tensors = {name: _part(problem, name, t, rank, size).detach().clone() for name, t in whole.tensors.items()}
    return Inputs({n: t.requires_grad_(whole.tensors[n].requires_grad) for n, t in tensors.items()}, whole.options)


def _step(problem: Problem, inputs: Inputs, options: dict) -> dict[str, Tensor]:
    """A forward and a backward of a loss: what it is, and every gradient."""
    loss = getattr(functional, problem.spec.function)(**inputs.arguments, **options)
    gradients = torch.autograd.grad(loss, list(inputs.leaves.values()))
    return {"loss": loss.detach(), **dict(zip(inputs.leaves, gradients, strict=True))}


def _error(problem: Problem, whole: Inputs, own: Inputs, step: Callable, rank: int, size: int) -> float:
    """Of a step by what one process says that has the whole batch, the largest error in its norm."""
    centers = [of.tensors["centers"] for of in (whole, own) if "centers" in of.tensors]
    before = [of.clone() for of in centers]
    exact, found, worst = _step(problem, whole, {"backend": "reference"}), step(), 0.0
    for name, expected in exact.items():
        if name in OF_ROWS:  # of which the mean over processes will be taken
            expected = size * _part(problem, name, expected, rank, size)
        worst = max(worst, float((found[name] - expected).norm() / expected.norm().clamp(min=1e-6)))
    if centers:
        worst = max(worst, float((centers[1] - centers[0]).norm() / centers[0].norm()))
        for of, old in zip(centers, before, strict=True):
            of.copy_(old)
    return worst


def _in_turns(steps: list[Callable], device: torch.device, seconds: float) -> list[float]:
    """Median seconds of each, in turns; all processes take as many."""
    import torch.distributed as dist

    def timed(step: Callable, count: int) -> float:
        dist.barrier()
        start = perf_counter()
        for _ in range(count):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        dist.barrier()
        return (perf_counter() - start) / count

    counts = []
    for step in steps:
        once = torch.tensor([timed(step, 2)], device=device)
        dist.all_reduce(once, dist.ReduceOp.MAX)
        counts.append(min(MOST_STEPS, max(1, int(seconds / len(steps) / REPEATS / once.item()))))
    found = [[timed(step, count) for step, count in zip(steps, counts, strict=True)] for _ in range(REPEATS)]
    return [median(of) for of in zip(*found, strict=True)]


def _counted(step: Callable) -> list[int]:
    """Bytes that each collective of a step gives this process."""
    counted, wait = [], collectives._wait

    def counting(*args) -> Tensor:
        result = wait(*args)
        counted.append(result.nbytes)
        return result

    with patch.object(collectives, "_wait", counting):
        step()
    return counted
