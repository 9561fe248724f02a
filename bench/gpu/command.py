"""``fer-fast bench gpu``: one command for a chip that is there for minutes."""

import tempfile
import time
from argparse import Namespace
from pathlib import Path

from rich.console import Console

from fer_fast.cli.parser import Parser
from fer_fast.errors import InputError
from fer_fast.suggest import one_of

from .. import rows
from ..audit_resources import CHIPS
from . import plan, report
from .compile import settle
from .driver import run as run_step
from .step import Asked

DESCRIPTION = """Everything to ask of a GPU that is there for minutes, in the order of worth: rates, parity at large
shapes, the benchmark table and its kernels, tile settings, CUDA graphs and streams, host time, repetitions,
compute-sanitizer, Nsight Compute, training steps, feeding, training. Each is a program of its own; each row is on disk
before the next is measured, and is not measured again for the same chip, kernels and versions. `--prepare` compiles for
a chip that is not there."""
REHEARSAL_MINUTES = 15.0


def run(argv: list[str]) -> int:
    """Measure, or prepare, as the arguments say."""
    given = _parser().parse_args(argv)
    if given.prepare:
        return _prepare(given)
    with tempfile.TemporaryDirectory(prefix="fer-fast-bench-gpu-") as folder:
        asked = _asked(given, folder)
        if given.cache:
            settle(Path(given.cache))
        record = plan.go(asked)
    console = Console(highlight=False)
    report.show(console, record)
    console.print(f"rows: {record.path}")
    return int(report.wrong(record))


def _parser() -> Parser:
    parser = Parser(prog="fer-fast bench gpu", description=DESCRIPTION)
    parser.add_argument("--minutes", type=float, metavar="M", help="all there are (default: 8)")
    parser.add_argument("--only", metavar="STEP,...", help=f"any of {', '.join(plan.NAMES)}")
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the rows (default: bench/results/gpu of the repository)"
    )
    parser.add_argument("--again", action="store_true", help="measure what has been measured too")
    parser.add_argument("--fer2013", metavar="DIR", default="", help="train on FER2013 from its folder")
    parser.add_argument(
        "--cache", metavar="DIR", default="", help="folder of compiled kernels, to fill or to find them"
    )
    parser.add_argument("--prepare", action="store_true", help="only compile, without a GPU, into --cache")
    parser.add_argument("--chip", choices=CHIPS, default="sm90", help="to prepare for (default: sm90)")
    parser.add_argument("--rehearse", action="store_true", help="every step at tiny shapes on the CPU; needs --out")
    return parser


def _asked(given: Namespace, folder: str) -> plan.Run:
    minutes = given.minutes if given.minutes is not None else REHEARSAL_MINUTES if given.rehearse else 8.0
    if not 0 < minutes < 24 * 60:
        raise InputError(f"--minutes: {minutes:g} is not a number of minutes above zero")
    only = tuple(one_of(name, plan.NAMES, "--only") for name in (given.only or ",".join(plan.NAMES)).split(","))
    if given.rehearse and not given.out:
        raise InputError("--rehearse needs --out DIR: its rows are no measurements")
    if given.fer2013 and not Path(given.fer2013).is_dir():
        raise InputError(f"--fer2013: no folder {given.fer2013}")
    out = Path(given.out) if given.out else rows.ROOT / "bench" / "results" / "gpu"
    if not given.out and not out.parent.is_dir():
        raise InputError("rows are kept in the repository; from an installed package use --out DIR")
    fer2013 = str(Path(given.fer2013).resolve()) if given.fer2013 else ""
    asked = Asked(0, given.rehearse, chip=given.chip, fer2013=fer2013, folder=folder, parts=only)
    cache = str(Path(given.cache).resolve()) if given.cache else ""
    return plan.Run(minutes * 60, only, out, given.rehearse, given.again, cache, asked)


def _prepare(given: Namespace) -> int:
    """Compile everything for a chip, and say how much that was."""
    if not given.cache:
        raise InputError("--prepare needs --cache DIR, where the compiled kernels go")
    cache = Path(given.cache)
    settle(cache)
    parts = []
    seconds = (given.minutes or 24 * 60) * 60
    asked = Asked(time.time() + seconds, given.rehearse, chip=given.chip, parts=plan.NAMES)
    environment = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache.resolve()), "TRITON_STORE_BINARY_ONLY": "1"}
    ended = run_step(f"{__package__}.compile", vars(asked), seconds, seconds, environment, parts.append)
    Console(highlight=False, markup=False).print(report.compiled(parts), soft_wrap=True)
    if not ended.whole:
        raise InputError(f"--prepare: {ended.case}: {ended.reason}")
    return 0
