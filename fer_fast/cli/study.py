"""What the commands share that run many times: the options that make axes of a study, and which of them are refused."""

import argparse
import json
from itertools import groupby
from typing import Any

from fer_fast.errors import InputError
from fer_fast.train.config import RunConfig
from fer_fast.train.idle import given_keys, refuse_idle
from fer_fast.train.nested import read_yaml
from fer_fast.train.study import FOLD, MOST_RUNS, SEED, Study, StudyRun


def add_study_options(parser: argparse.ArgumentParser, sweep: bool) -> None:
    """Add --seeds and --folds, and --grid for a sweep."""
    parser.add_argument("--seeds", type=int, metavar="N", help="N runs, of --seed and the seeds after it")
    help_folds = "a run on each of K folds by subject; data.folds becomes K. With --seeds: each fold with every seed"
    parser.add_argument("--folds", type=int, metavar="K", help=help_folds)
    if sweep:
        help_grid = "values of a configuration key, e.g. optimiser.rate=[0.1,0.01]; once for each key"
        parser.add_argument("--grid", action="append", metavar="KEY=[VALUE,...]", help=help_grid)


def fold_layer(given: argparse.Namespace, begun: Study | None) -> dict[str, Any]:
    """What --folds says of the configuration, where it is not given that of the study that is resumed."""
    folds = given.folds or (begun.base.data.folds if begun and FOLD in begun.axes else None)
    return {"data": {"folds": folds}} if folds else {}


def axes_of(given: argparse.Namespace, config: RunConfig) -> dict[str, tuple[Any, ...]]:
    """The axes that the options ask for, outermost first.

    Raises:
        InputError: a grid that is none, a key that is given twice, or a number out of range.
    """
    for name in ("seeds", "folds"):
        if (number := getattr(given, name)) is not None and not 1 <= number <= MOST_RUNS:
            raise InputError(f"--{name} is {number}; allowed: 1 to {MOST_RUNS}")
    if given.folds not in (None, config.data.folds):
        raise InputError(f"--folds is {given.folds} and --data.folds {config.data.folds}; leave the second out")
    axes = [_grid(text) for text in getattr(given, "grid", None) or ()]
    if given.seeds:
        axes.append((SEED, tuple(range(config.seed, config.seed + given.seeds))))
    if given.folds:
        axes.append((FOLD, tuple(range(1, given.folds + 1))))
    keys = [key for key, _ in axes]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(f"the values of {twice[0]} are given twice")
    return dict(axes)


def _grid(text: str) -> tuple[str, tuple[Any, ...]]:
    key, _, listed = text.partition("=")
    try:
        values = read_yaml(listed)
    except ValueError:
        values = None
    if not isinstance(values, list):
        raise InputError(f"--grid {text}: a key and a list of its values are needed, e.g. optimiser.rate=[0.1,0.01]")
    return key, tuple(values)


def refuse_idle_study(study: Study, argv: list[str], recipe: dict[str, Any], file: dict[str, Any]) -> None:
    """Refuse options that do nothing in any run, and axes that do nothing in one: its runs would be the same.

    Raises:
        InputError: the first of them.
    """
    if idle := [key for key in given_keys(argv) if key in study.axes and key != SEED]:
        raise InputError(f"--{idle[0]} does nothing beside the values that runs are given for it")
    first, *others = (run.config for run in _points(study))
    refuse_idle(first, argv, recipe, file, others)
    refuse_idle_axes(study)


def refuse_idle_axes(study: Study, begun: Study | None = None) -> None:
    """Refuse axes that do nothing in a run that the study was not begun with.

    Raises:
        InputError: the first of them.
    """
    known = [run.point for run in _points(begun)] if begun else []
    for run in _points(study):
        if run.point not in known:
            axes = run.point if run.fold is None else {**run.point, FOLD: run.fold}
            refuse_idle(run.config, [f"--{key}={json.dumps(value)}" for key, value in axes.items()], {}, {})


def _points(study: Study) -> list[StudyRun]:
    """The first run of every point."""
    return [next(runs) for _, runs in groupby(study.runs, key=lambda run: run.point)]
