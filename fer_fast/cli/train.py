"""``fer-fast train``."""

import argparse
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from fer_fast.cli.parser import Parser, underscored
from fer_fast.cli.study import add_study_options, axes_of, fold_layer, refuse_idle_axes, refuse_idle_study
from fer_fast.cli.summary import print_metrics, print_study
from fer_fast.errors import InputError
from fer_fast.train.checkpoint import RESUME, load_resume
from fer_fast.train.config import RunConfig, config_parser, file_layer, recipe_layer, resolve, to_dict
from fer_fast.train.folder import STUDY, fresh_folder, latest_folder
from fer_fast.train.idle import refuse_idle
from fer_fast.train.processes import Processes, joined
from fer_fast.train.run import CONFIG, only_configured, train
from fer_fast.train.study import Study, failure, read_study, refuse_more_epochs, run_study

ABOUT = {
    "prog": "fer-fast train",
    "usage": """fer-fast train [--recipe NAME] [--dataset NAME] [--root DIR] [--backbone NAME] [--loss NAME]
                      [--epochs N] [--out DIR] [--seed N] [--seeds N] [--folds K] [--resume]
                      [--config FILE] [--GROUP.KEY VALUE ...]""",
    "description": """Train a model, evaluate it on the test split, and leave config.yaml, log.jsonl, a checkpoint,
metrics.json and report.html in the run's folder. Without options: the quick recipe on generated faces. A key takes its
value from the last of: defaults, recipe, --config FILE, options.""",
}


def run(argv: list[str]) -> int:
    """Train as the arguments say."""
    return start(argv, ABOUT)


def start(argv: list[str], about: dict[str, str], *, sweep: bool = False) -> int:
    """Begin or resume one run, or a study, as the arguments of a command say; of torchrun's processes all do.

    Args:
        argv: its arguments.
        about: keywords of its parser.
        sweep: whether it takes a grid, and so is always a study.
    """
    with joined() as processes:
        asked = processes.from_first(lambda: _asked(underscored(argv), about, sweep, processes))
        return _carry_out(asked, processes)


class _Asked(NamedTuple):
    """What the arguments of a command ask for."""

    config: RunConfig
    study: Study | None
    out: Path
    how: dict[str, Any]


def _asked(argv: list[str], about: dict[str, str], sweep: bool, processes: Processes) -> _Asked:
    # Recipe and file are what the other options are laid over, so they are looked for first.
    early = Parser(add_help=False)
    early.add_argument("--recipe")
    _add_run_options(early, sweep)
    given, _ = early.parse_known_args(argv)
    out = Path(given.out) if given.out else None
    if given.resume and out is None:
        out = latest_folder(given.recipe or "quick")
    begun = read_study(out) if given.resume and (sweep or (out / STUDY).exists()) else None
    parser = config_parser(**about)
    _add_run_options(parser, sweep)
    layers = _layers(given, out, begun)
    config, _ = resolve(parser, argv, [*layers, fold_layer(given, begun)])
    axes = (begun.axes if begun else {}) | axes_of(given, config)
    if sweep and not axes:
        raise InputError("a sweep needs --grid KEY=[VALUE,...], e.g. optimiser.rate=[0.1,0.01]")
    study = Study(config, axes) if axes else None
    if study and processes.count > 1:
        raise InputError(
            f"torchrun's processes train one run at a time, not {study.title}; start it with fer-fast alone"
        )
    if not given.resume:
        refuse_idle_study(study, argv, *layers) if study else refuse_idle(config, argv, *layers)
    elif not study:
        refuse_more_epochs(config, out)
    elif begun:  # with what it has; only what comes to it is looked at
        refuse_idle_axes(study, begun)
    command = about["prog"].removeprefix("fer-fast ")
    how = {"resume": given.resume, "command": f"{processes.program} {shlex.join((command, *argv))}"}
    return _Asked(config, study, out or fresh_folder(config.recipe), how)


def _carry_out(asked: _Asked, processes: Processes) -> int:
    config, study, out, how = asked
    try:
        metrics = run_study(study, out, **how) if study else train(config, out, **how)
    except KeyboardInterrupt:
        begun = any((out / name).exists() for name in (STUDY, RESUME, CONFIG))
        again = f"continue with: {processes.program} train --resume --out {shlex.quote(str(out))}"
        raise KeyboardInterrupt(again if begun else "") from None
    print_study(metrics, study.title) if study else print_metrics(metrics)
    print(f"report: {out / 'report.html'}")
    if study and (failed := metrics.get("failed")):
        raise failure(failed, len(study.runs), out)
    return 0


def _add_run_options(parser: argparse.ArgumentParser, sweep: bool) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file of configuration keys, e.g. config.yaml of a run")
    parser.add_argument("--out", metavar="DIR", help="folder of the run; by itself the next free runs/<recipe>-<n>")
    help_resume = (
        "continue what is in --out, or the latest of the recipe; a finished run with more --epochs, a study with more "
        "--seeds or values of --grid (its folds and epochs stay)"
    )
    parser.add_argument("--resume", action="store_true", help=help_resume)
    add_study_options(parser, sweep)


def _layers(given: argparse.Namespace, out: Path | None, begun: Study | None) -> list[dict[str, Any]]:
    """What the options are laid over: the configuration of what is resumed, or recipe and file."""
    if given.resume and not given.recipe and not given.config:
        if begun:
            return [to_dict(begun.base)]
        return [file_layer(out / CONFIG) if only_configured(out) else load_resume(out, tensors=False)[1]["config"]]
    file = file_layer(given.config) if given.config else {}
    return [recipe_layer(given.recipe or file.get("recipe", "quick")), file]
