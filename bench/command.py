"""``fer-fast bench``: measure, print a table, keep the rows where asked."""

import os
import shlex
from argparse import Namespace
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

from fer_fast import dispatch
from fer_fast.cli.parser import Parser
from fer_fast.errors import InputError
from fer_fast.suggest import one_of

from . import rows, table
from .contenders import COMPILED, FER_FAST, Contender
from .driver import CONTENDERS, Setting, run_problem
from .measure import Gauge
from .peers import PEERS
from .problems import DTYPES, Problem, losses_named, quick, quick_shape, sweep

DESCRIPTION = """Time, memory and error of every loss beside plain PyTorch, torch.compile and other packages, and the
share of the physical floor reached. Every answer is checked against the float64 reference before it is timed.
`fer-fast bench charts` draws the recorded rows, `fer-fast bench table10` times a step of each loss on each backbone,
`fer-fast bench steps` a recipe's whole training steps and where their time goes, `fer-fast bench targets` holds this
library to what it promises on a CPU, `fer-fast bench launches` times the host's part of a step, and `fer-fast bench
audit` counts what the kernels move and take of a chip; both without a GPU. `fer-fast bench distributed` times a step
over several processes and counts what goes round. `fer-fast bench gpu` asks a GPU everything
in the minutes it is there."""
ACTIONS = {  # imported when they are asked for: a machine lent for a bench may lack what training takes
    "audit": "audit",
    "charts": "charts",
    "distributed": "distributed",
    "gpu": "gpu.command",
    "launches": "launches",
    "steps": "steps",
    "table10": "table10",
    "targets": "targets",
}
BUSY = 0.75  # load a core above which timings are not to be trusted


def run(argv: list[str]) -> int:
    """Measure as the arguments say."""
    if argv and argv[0] in ACTIONS:
        return import_module(f".{ACTIONS[argv[0]]}", __package__).run(argv[1:])
    given = _parser().parse_args(argv)
    with dispatch.backend(given.backend):
        return _measure(given)


def _measure(given: Namespace) -> int:
    if given.threads:
        torch.set_num_threads(given.threads)
    device = _device(given.device)
    problems = _problems(given, device)
    contenders = _contenders(given, device)
    kept = _kept(given, device)
    console, status = Console(highlight=False), Console(stderr=True, highlight=False)
    if os.getloadavg()[0] > BUSY * (os.cpu_count() or 1):
        status.print(f"the machine is busy (load {os.getloadavg()[0]:.1f}): timings will be too long", style="yellow")
    setting = Setting(
        contenders=tuple(contender for contender in contenders if not contender.unavailable(device)),
        device=device,
        gauge=Gauge(given.dtype, device),
        seconds=given.seconds,
        environment=rows.environment(device),
        command=partial(_command, given, device, contenders),
    )
    results = []
    with status.status("") as spinner:
        for number, problem in enumerate(problems, 1):
            spinner.update(f"{number}/{len(problems)}  {problem.loss}  {problem.shape}")
            results.append(run_problem(problem, setting))
            if kept:
                rows.append(kept, results[-1])
    table.show(console, results, _remarks(contenders, device))
    if kept:
        console.print(f"rows added to {kept}")
    return 1 if any(row.status == "wrong" and row.contender == FER_FAST.name for r in results for row in r) else 0


def _parser() -> Parser:
    parser = Parser(prog="fer-fast bench", description=DESCRIPTION)
    parser.add_argument("--loss", metavar="NAME", action="append", default=[], help="one loss (may be repeated)")
    parser.add_argument("--shape", metavar="n=512,d=128", help="another shape: n, d, classes, k (embeddings), bank")
    parser.add_argument("--full", action="store_true", help="also sweep over the batch and the bank, torch.compile too")
    parser.add_argument("--dtype", default="float32", help=f"{', '.join(DTYPES)} (default: float32)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--backend", default="auto", help=f"ours: {', '.join(dispatch.BACKENDS)} (default: auto)")
    parser.add_argument("--threads", metavar="N", type=_count, help="threads of PyTorch on a CPU")
    parser.add_argument("--against", metavar="A,B", help=f"any of {', '.join(list(CONTENDERS)[1:])}")
    parser.add_argument("--seconds", metavar="S", type=float, default=1.0, help="of timing, each problem (default: 1)")
    parser.add_argument("--out", metavar="FILE", help="append the rows to a file, one JSON object a line")
    parser.add_argument("--record", action="store_true", help="append to bench/results/<chip>.jsonl of the repository")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"--threads: {text!r} is not a number above zero")
    return int(text)


def _problems(given: Namespace, device: torch.device) -> list[Problem]:
    one_of(given.dtype, DTYPES, "--dtype")
    losses = losses_named(given.loss)
    if given.shape:
        return [Problem(name, quick_shape(name, device.type).with_(given.shape), given.dtype) for name in losses]
    return (sweep if given.full else quick)(losses, given.dtype, device.type)


def _contenders(given: Namespace, device: torch.device) -> tuple[Contender, ...]:
    """Ours and those asked for; else all, without `torch.compile` where its compiling would take most of the time."""
    if given.against is not None:
        names = [one_of(name, CONTENDERS, "--against") for name in given.against.split(",") if name]
    else:
        slow = () if given.full or device.type == "cuda" else (COMPILED.name,)
        names = [name for name in CONTENDERS if name not in slow]
    return tuple(CONTENDERS[name] for name in dict.fromkeys((FER_FAST.name, *names)))


def _remarks(contenders: tuple[Contender, ...], device: torch.device) -> list[str]:
    """A line for each peer: why it is not here, or what it has no equivalent of."""
    peers = [contender for contender in contenders if contender in PEERS]
    return [f"{peer.name}: {peer.unavailable(device) or f'has {peer.missing}'}" for peer in peers]


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name!r} cannot be used: {(str(error).splitlines() or ['unknown'])[0]}") from None
    return device


def _kept(given: Namespace, device: torch.device) -> Path | None:
    if not given.record:
        return Path(given.out) if given.out else None
    if given.out:
        raise InputError("--record and --out: give one of them")
    if not (rows.ROOT / "bench" / "results").is_dir():
        raise InputError("--record keeps rows in the repository; from an installed package use --out FILE")
    return rows.ROOT / "bench" / "results" / rows.file_name(rows.chip(device))


def _command(given: Namespace, device: torch.device, contenders: tuple[Contender, ...], problem: Problem) -> str:
    against = ",".join(contender.name for contender in contenders if contender is not FER_FAST)
    words = ["fer-fast", "bench", "--loss", problem.loss, "--shape", str(problem.shape), "--dtype", problem.dtype]
    words += ["--device", device.type, "--threads", str(torch.get_num_threads()), "--against", against]
    words += ["--backend", given.backend] if given.backend != "auto" else []
    return shlex.join([*words, "--seconds", f"{given.seconds:g}"])
