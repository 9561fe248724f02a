"""A study: a configuration over values of some of its keys, each combination a run in a folder of its own."""

import functools
import itertools
import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fer_fast.errors import InputError, printable
from fer_fast.suggest import one_of
from fer_fast.train.checkpoint import CHECKPOINT, RESUME, write_text
from fer_fast.train.config import (
    RunConfig,
    changed,
    config_parser,
    file_layer,
    from_dict,
    resolve,
    to_dict,
)
from fer_fast.train.evaluation import match_classes
from fer_fast.train.folder import STUDY, claimed, refuse_results
from fer_fast.train.nested import difference, placed
from fer_fast.train.run import prepare, train, try_model
from fer_fast.train.shown import HEADLINES
from fer_fast.train.study_summary import summarise

SEED, FOLD = "seed", "data.fold"
MOST_RUNS = 1000
_NEEDED = {*HEADLINES, "split", "classes", "confusion_matrix", "epoch", "seconds", "val_accuracy"}


class StudyRun(NamedTuple):
    """One run of a study.

    Attributes:
        folder: below that of the study, with "/" between its parts.
        point: key -> value of the axes that are neither seeds nor folds.
        seed, fold: of the run; None where the study has no folds.
        config: of the run.
    """

    folder: str
    point: dict[str, Any]
    seed: int
    fold: int | None
    config: RunConfig


@dataclass(frozen=True)
class Study:
    """A configuration over values of some of its keys.

    Args:
        base: what all runs have in common.
        axes: dotted key of the configuration, also below a mapping (objective.options.lmcl.s) -> its values, outermost
            first; seeds (seed) and folds (data.fold) are innermost wherever they stand.

    Raises:
        InputError: an axis that is no key or has no values.
    """

    base: RunConfig
    axes: dict[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        for key, values in self.axes.items():
            _check_axis(key, values)
        if (count := math.prod(map(len, self.axes.values()))) > MOST_RUNS:
            raise InputError(f"the study has {count:,} runs; allowed: up to {MOST_RUNS:,}")

    @functools.cached_property
    def runs(self) -> tuple[StudyRun, ...]:
        """Every combination, in the order they run in.

        Raises:
            InputError: values that a configuration cannot have, or two runs that are the same.
        """
        grid = [key for key in self.axes if key not in (SEED, FOLD)]
        keys = [*grid, *(key for key in (SEED, FOLD) if key in self.axes)]
        named = [list(zip(self.axes[key], _names(self.axes[key]), strict=True)) for key in keys]
        parser, base, runs = config_parser(), to_dict(self.base), {}
        for combination in itertools.product(*named):
            chosen = {key: value for key, (value, _) in zip(keys, combination, strict=True)}
            folder = _folder({key: name for key, (_, name) in zip(keys, combination, strict=True)})
            values = functools.reduce(lambda values, item: placed(values, *item), chosen.items(), base)
            with _named(folder):
                config = resolve(parser, [], [values])[0]
            fold = config.data.fold if FOLD in chosen else None
            run = StudyRun(folder, {key: chosen[key] for key in grid}, config.seed, fold, config)
            if (same := runs.setdefault(_text(to_dict(config)), run)) is not run:
                raise InputError(f"{same.folder} and {folder} would be the same run; give each value once")
        return tuple(runs.values())

    def as_dict(self) -> dict[str, Any]:
        """The contents of study.json."""
        return {"base": to_dict(self.base), "axes": {key: list(values) for key, values in self.axes.items()}}


def read_study(out: Path) -> Study:
    """The study that was begun in a folder.

    Raises:
        InputError: there is none, or its study.json is damaged.
    """
    path = out / STUDY
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Study(from_dict(stored["base"]), {key: tuple(values) for key, values in stored["axes"].items()})
    except FileNotFoundError:
        kind = " but a run" if (out / RESUME).exists() else ""
        raise InputError(f"nothing to resume: there is no study in {out}{kind}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None


def run_study(study: Study, out: Path, *, resume: bool = False, command: str | None = None) -> dict[str, Any]:
    """Run what is not finished of a study, one run after another, and leave the numbers of all in `out`.

    Every network is built and all data opened before the first run. A run that fails does not keep the others from
    running.

    Args:
        study: what to run; to resume, the one begun in `out`.
        out: folder of the study, made if it is not there; each run has one below it.
        resume: go on with the study in `out`: finished runs are kept, a begun one is resumed.
        command: the command line that asks for it, as the files of its runs will say; None from Python.

    Returns:
        metrics.json, see `summarise`.

    Raises:
        InputError: runs that cannot be configured, a folder that holds something else or is being written, nothing to
            resume, or runs that failed, when all others are finished.
    """
    with claimed(out):
        if resume:
            _check_same(read_study(out), study, out)
        else:
            refuse_results(out, RESUME, CHECKPOINT, "metrics.json")
            for run in study.runs:
                refuse_results(out / run.folder, RESUME, CHECKPOINT, "metrics.json")
        finished = {run.folder: metrics for run in study.runs if (metrics := _finished(run, out))}
        if len(finished) == len(study.runs) and (out / "metrics.json").exists():
            raise InputError(f"nothing to resume: the study in {out} is finished ({len(finished)} runs)")
        _check([run for run in study.runs if run.folder not in finished and not (out / run.folder / RESUME).exists()])
        write_text(out / STUDY, json.dumps(study.as_dict(), indent=1) + "\n")
        _run_all(study, out, finished, command)
        return _conclude(study, out)


def _run_all(study: Study, out: Path, finished: dict[str, dict[str, Any]], command: str | None) -> None:
    failed = {}
    for number, run in enumerate(study.runs, 1):
        done = run.folder in finished
        print(f"\nrun {number} of {len(study.runs)}: {run.folder}{' is finished' if done else ''}", flush=True)
        folder = out / run.folder
        try:
            metrics = (
                finished[run.folder]
                if done
                else train(run.config, folder, resume=(folder / RESUME).exists(), command=command)
            )
            print(
                f"{run.folder}: {metrics['split']} accuracy {metrics['accuracy']:.4f}, epoch {metrics['epoch']}",
                flush=True,
            )
        except InputError as error:
            failed[run.folder] = str(error)
            print(f"fer-fast: {printable(f'{run.folder} failed: {error}')}", file=sys.stderr, flush=True)
    if failed:
        first, *others = failed
        raise InputError(
            f"{len(failed)} of {len(study.runs)} runs failed: {first} ({failed[first]})"
            f"{'; also ' if others else ''}{', '.join(others)}; the others are finished, "
            f"--resume --out {out} tries again"
        )


def _conclude(study: Study, out: Path) -> dict[str, Any]:
    """Write report.html, then metrics.json, whose presence marks a finished study."""
    from fer_fast.train.study_report import write_study_report  # matplotlib, which takes seconds to import

    results, histories = [], {}
    for run in study.runs:
        if (metrics := _finished(run, out)) is None:
            raise InputError(f"{out / run.folder} was finished and is no longer; --resume --out {out} runs it again")
        histories[run.folder] = metrics.pop("history")
        results.append({**metrics, **{key: getattr(run, key) for key in ("folder", "point", "seed", "fold")}})
    summary = summarise(study.axes, results)
    title = f"{study.base.recipe}: {len(results)} runs over {', '.join(key.split('.')[-1] for key in study.axes)}"
    shown = {**summary, "config": to_dict(study.base)}
    write_study_report(out / "report.html", title=title, summary=shown, histories=histories)
    write_text(out / "metrics.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _finished(run: StudyRun, out: Path) -> dict[str, Any] | None:
    """The metrics of a run with its "history"; None where it is not finished.

    Raises:
        InputError: a run of another configuration, one that is damaged and cannot be resumed, or one that another
            process is writing.
    """
    folder = out / run.folder
    if (folder / "config.yaml").exists() and (other := changed(file_layer(folder / "config.yaml"), run.config)):
        raise InputError(f"cannot resume {folder} with another configuration: {other}")
    if not (folder / "metrics.json").exists():
        return None
    with claimed(folder):  # which also takes away what a kill left of a claim
        try:
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
            metrics["history"] = [json.loads(line) for line in lines]
            whole = metrics.keys() >= _NEEDED and len(lines) >= metrics["epoch"]
        except (OSError, ValueError, LookupError, TypeError):
            whole = False
    if not whole:
        raise InputError(f"{folder} is damaged (metrics.json, log.jsonl); without that folder the run is made again")
    return metrics


def _check_same(begun: Study, study: Study, out: Path) -> None:
    other = difference(begun.as_dict()["axes"], study.as_dict()["axes"]) or changed(to_dict(begun.base), study.base)
    if other:
        raise InputError(f"cannot resume {out} with another configuration: {other}")


def _check(runs: list[StudyRun]) -> None:
    """Build every network and open all data of these runs: the last one must not fail where the first could have.

    Raises:
        InputError: what a run cannot begin with, and which.
    """
    for attempt, apart in ((try_model, _model), (_open, _data)):
        first: dict[str, StudyRun] = {}
        for run in runs:
            first.setdefault(_text(apart(to_dict(run.config))), run)
        for run in first.values():
            with _named(run.folder):
                attempt(run.config)


def _open(config: RunConfig) -> None:
    _, splits, _ = prepare(config)
    match_classes(splits.test, splits.train.classes)


def _model(values: dict[str, Any]) -> Any:
    """What decides whether a model can be built."""
    return {**values, "seed": None, "data": None}


def _data(values: dict[str, Any]) -> Any:
    """What decides whether data can be trained on; the seed that cuts it does where weights may know what is tested."""
    weights = values["model"]["weights"]
    return [
        *(values[key] for key in ("dataset", "root", "test_dataset", "test_root", "data")),
        weights and (weights, values["seed"]),
    ]


@contextmanager
def _named(folder: str) -> Iterator[None]:
    """Errors begin with the run they are of."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None


def _check_axis(key: str, values: tuple[Any, ...]) -> None:
    names, level = key.split("."), to_dict(RunConfig())
    del level["recipe"]  # a name for the values of other keys, which it would not bring along
    for depth, name in enumerate(names):
        if not isinstance(level, dict) or not name:
            raise InputError(f"axis {key}: no such key; {'.'.join(names[:depth])} has none below it")
        if not level and depth:  # a mapping by names, which are checked by what reads them
            break
        level = level[one_of(name, level, f"axis {key}")]
    if isinstance(level, dict) and level:
        raise InputError(f"axis {key} is a group; name a key of it: {', '.join(level)}")
    if not values:
        raise InputError(f"axis {key} has no values")
    if None in values and level not in (None, {}):
        raise InputError(f"axis {key}: null is no value of it")
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(f"axis {key}: {list(values)} holds what is no number, word, list or mapping") from None


def _folder(names: dict[str, str]) -> str:
    """The folder of a run, from the name of its value on every axis."""
    grid = [key for key in names if key not in (SEED, FOLD)]
    last = [key.rpartition(".")[2] for key in grid]
    labels = [short if last.count(short) == 1 else key for short, key in zip(last, grid, strict=True)]
    parts = ["_".join(f"{_safe(label)}-{names[key]}" for label, key in zip(labels, grid, strict=True))]
    parts += [f"{word}-{names[key]}" for word, key in (("seed", SEED), ("fold", FOLD)) if key in names]
    return "/".join(filter(None, parts))


def _names(values: tuple[Any, ...]) -> list[str]:
    """Values as parts of file names, different ones also where case does not count."""
    names = [_safe(value if isinstance(value, str) else json.dumps(value)) for value in values]
    if len({name.casefold() for name in names}) == len(names):
        return names
    return [f"{name}-{number}" for number, name in enumerate(names, 1)]


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", re.sub(r"[][{}\"' ]", "", text))[:40]


def _text(values: Any) -> str:
    return json.dumps(values, sort_keys=True)
