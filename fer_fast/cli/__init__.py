"""The ``fer-fast`` command: one table of subcommands, and one place where errors become one line."""

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version

from fer_fast.errors import InputError, printable
from fer_fast.suggest import one_of
from fer_fast.train.processes import speaks, started_by_torchrun

# Modules are imported when their command runs: `fer-fast --help` must not wait for torch.
COMMANDS = {
    "train": ("fer_fast.cli.train", "train a model; without options: the quick recipe on generated faces"),
    "sweep": ("fer_fast.cli.sweep", "train every combination of values of some options, ranked by validation"),
    "eval": ("fer_fast.cli.eval", "evaluate a checkpoint on a dataset"),
    "compare": ("fer_fast.cli.compare", "finished runs on the same images: a paired test, what is confused"),
    "verify": ("fer_fast.cli.verify", "whether what a run says is so: its data, its weights, its numbers again"),
    "enrol": ("fer_fast.cli.enrol", "add a class from about ten photos without training; choose a threshold"),
    "predict": ("fer_fast.cli.predict", "name the faces of photos, folders and videos"),
    "demo": ("fer_fast.cli.demo", "a page in the browser: a photo or the camera in, named faces out, classes enrolled"),
    "export": ("fer_fast.cli.export", "a checkpoint as ONNX or torch.export, with a model card, for other programs"),
    "data": ("fer_fast.cli.data", "look at a dataset on disk, or read about one: fer-fast data check DIR"),
    "table": ("fer_fast.cli.table", "a paper's results beside those of your runs, and the command of every row"),
    "bench": ("fer_fast.bench.command", "time, memory and error of every loss beside its peers and the floor"),
    "list": ("fer_fast.cli.list", "losses, backbones, datasets and recipes by name"),
}

_EXTRAS = {"demo": "demo"}  # what a command needs beside what all need


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for bad input, 130 when interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn_once()
            return _dispatch(arguments)
    except InputError as error:
        return fail(str(error))
    except BrokenPipeError:
        # The reader went away (`| head`); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("fer_fast", "triton"):
            raise
        extra = _EXTRAS.get(arguments[0], "train")
        return fail(f'{error.name} is not installed, which this command needs: pip install "fer-fast[{extra}]"')
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt as stop:
        if speaks():
            print(f"fer-fast: interrupted{f'; {stop}' if str(stop) else ''}", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(f"fer-fast {version('fer-fast')}")
        return 0
    module, _ = COMMANDS[one_of(arguments[0], COMMANDS, "command")]
    if started_by_torchrun() and arguments[0] not in ("train", "sweep"):
        raise InputError(f"fer-fast {arguments[0]} is for one process; start it without torchrun")
    return importlib.import_module(module).run(arguments[1:])


def _help() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        (
            "usage: fer-fast COMMAND [OPTIONS]",
            "",
            "Training losses for facial-expression recognition: train, evaluate, predict.",
            "",
            *lines,
            "",
            "`fer-fast COMMAND --help` shows the options of a command; `fer-fast --version` the version.",
        )
    )


def _warn_once() -> Callable[..., None]:
    """What prints a warning as one line; the splits of a dataset tend to say the same."""
    said = set()

    def warn(message: Warning | str, *_: object) -> None:
        text = printable(" ".join(str(message).split()))
        if text not in said:
            said.add(text)
            print(f"fer-fast: warning: {text}", file=sys.stderr)

    return warn


def fail(message: str) -> int:
    """Print one line on standard error, one for all processes; the exit status of bad input."""
    if speaks():
        print(f"fer-fast: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2
