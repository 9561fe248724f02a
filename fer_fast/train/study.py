"""A study: a configuration over values of some of its keys, each combination a run in a folder of its own."""

import functools
import itertools
import json
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fer_fast.errors import InputError, printable
from fer_fast.train.checkpoint import CHECKPOINT, RESUME
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
from fer_fast.train.idle import settings_read
from fer_fast.train.nested import difference, placed
from fer_fast.train.run import prepare, train, try_model
from fer_fast.train.shown import HEADLINES, counted, short
from fer_fast.train.study_axes import FOLD, SEED, check_axis, folder_of, names_of
from fer_fast.train.study_summary import complete, summarise
from fer_fast.written import write_text

MOST_RUNS = 1000
_NEEDED = {*HEADLINES, "split", "classes", "confusion_matrix", "data", "epoch", "seconds", "val_accuracy"}


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
            check_axis(key, values)
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
        named = [list(zip(self.axes[key], names_of(self.axes[key]), strict=True)) for key in keys]
        parser, base, runs = config_parser(), to_dict(self.base), {}
        for combination in itertools.product(*named):
            chosen = {key: value for key, (value, _) in zip(keys, combination, strict=True)}
            folder = folder_of({key: name for key, (_, name) in zip(keys, combination, strict=True)})
            values = functools.reduce(lambda values, item: placed(values, *item), chosen.items(), base)
            with _named(folder):
                config = resolve(parser, [], [values])[0]
            fold = config.data.fold if FOLD in chosen else None
            run = StudyRun(folder, {key: chosen[key] for key in grid}, config.seed, fold, config)
            if (same := runs.setdefault(_text(to_dict(config)), run)) is not run:
                raise InputError(f"{same.folder} and {folder} would be the same run; give each value once")
        return tuple(runs.values())

    @property
    def title(self) -> str:
        """What it is about: recipe, loss, backbone and dataset, as far as they are the same in all runs, and axes."""
        names = [
            getattr(self.base, key) for key in ("loss", "backbone", "dataset", "test_dataset") if key not in self.axes
        ]
        over = ", ".join(short(key) for key in self.axes)
        about = " · ".join(dict.fromkeys(filter(None, (self.base.recipe, *names))))
        return f"{about}: {counted(len(self.runs), 'run')} over {over}"

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


def refuse_more_epochs(config: RunConfig, folder: Path) -> None:
    """Refuse to extend one run of a study, which would be none any more.

    Raises:
        InputError: the folder is that of a run of a study, which has other epochs.
    """
    folder = folder.resolve()
    for parent in [parent for parent in folder.parents if (parent / STUDY).exists()]:
        for run in read_study(parent).runs:
            if parent / run.folder == folder and run.config.epochs != config.epochs:
                raise InputError(f"{folder} is a run of the study in {parent}, which cannot be given more epochs")


def run_study(study: Study, out: Path, *, resume: bool = False, command: str | None = None) -> dict[str, Any]:
    """Run what is not finished of a study, one run after another, and leave the numbers of all in `out`.

    Every network is built and all data opened before the first run. A run that fails does not keep the others from
    running.

    Args:
        study: what to run; to resume, the one begun in `out`, or one of more values on its axes other than folds.
        out: folder of the study, made if it is not there; each run has one below it.
        resume: go on with the study in `out`: finished runs are kept, a begun one is resumed.
        command: the command line that asks for it, as the files of its runs will say; None from Python.

    Returns:
        metrics.json, see `summarise`; ``failed`` in it tells of runs that failed.

    Raises:
        InputError: runs that cannot be configured, a folder that holds something else or is being written, nothing to
            resume, runs that read other data than each other, or so many that failed that no point has all of its
            runs, when all others are finished.
    """
    with claimed(out):
        if resume:
            study = _extended(read_study(out), study, out)
        else:
            refuse_results(out, RESUME, CHECKPOINT, "metrics.json")
            for run in study.runs:
                refuse_results(out / run.folder, RESUME, CHECKPOINT, "metrics.json")
        finished = {run.folder: metrics for run in study.runs if (metrics := _finished(run, out))}
        _check_data([(run, finished[run.folder]) for run in study.runs if run.folder in finished])
        if len(finished) == len(study.runs) and _is_concluded(study, out):
            raise InputError(f"nothing to resume: the study in {out} is finished ({counted(len(finished), 'run')})")
        _check([run for run in study.runs if run.folder not in finished and not (out / run.folder / RESUME).exists()])
        write_text(out / STUDY, json.dumps(study.as_dict(), indent=1) + "\n")
        return _conclude(study, out, _run_all(study, out, finished, command))


def failure(failed: Sequence[dict[str, str]], count: int, out: Path) -> InputError:
    """What to say of a study of which some runs failed.

    Args:
        failed: folder and error of each.
        count: of all runs.
        out: folder of the study.
    """
    first, *others = (each["folder"] for each in failed)
    return InputError(
        f"{len(failed)} of {count} runs failed: {first} ({failed[0]['error']}){'; also ' if others else ''}"
        f"{', '.join(others)}; the others are finished, --resume --out {shlex.quote(str(out))} tries again"
    )


def _run_all(study: Study, out: Path, finished: dict[str, dict[str, Any]], command: str | None) -> list[dict[str, str]]:
    """Run what is not finished; folder and error of each run that failed."""
    failed = []
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
            failed.append({"folder": run.folder, "error": str(error)})
            print(f"fer-fast: {printable(f'{run.folder} failed: {error}')}", file=sys.stderr, flush=True)
    return failed


def _is_concluded(study: Study, out: Path) -> bool:
    """Whether the numbers that lie there are those of all runs of the study."""
    try:
        summary = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        return summary["axes"] == study.as_dict()["axes"] and not summary.get("failed")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _conclude(study: Study, out: Path, failed: list[dict[str, str]]) -> dict[str, Any]:
    """Write report.html, then metrics.json, whose presence marks a study that came to its end."""
    from fer_fast.train.study_report import write_study_report  # matplotlib, which takes seconds to import

    results, histories, lost = [], {}, {each["folder"] for each in failed}
    runs = [run for run in study.runs if run.folder not in lost]
    for run in runs:
        if (metrics := _finished(run, out)) is None:
            raise InputError(f"{out / run.folder} was finished and is no longer; --resume runs it again")
        histories[run.folder] = metrics.pop("history")
        results.append({**metrics, **{key: getattr(run, key) for key in ("folder", "point", "seed", "fold")}})
    _check_data(list(zip(runs, results, strict=True)))
    if not complete(study.axes, results):
        raise failure(failed, len(study.runs), out)
    summary = summarise(study.axes, results, failed)
    shown = {**summary, "config": settings_read(study.base)}
    write_study_report(out / "report.html", title=study.title, summary=shown, histories=histories)
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


def _extended(begun: Study, study: Study, out: Path) -> Study:
    """The study with its values in the order they came in, where all those it was begun with are still among them."""
    axes, kept = {}, {}
    for key, values in study.axes.items():
        old = begun.axes.get(key, ())
        axes[key] = (*old, *(value for value in values if value not in old))
        grows = key != FOLD and old and len(axes[key]) == len(values)
        kept[key] = [*(old if grows else values)]
    other = difference(begun.as_dict()["axes"], kept) or changed(to_dict(begun.base), study.base)
    if other:
        epochs = "; a study cannot be given more epochs" if begun.base.epochs != study.base.epochs else ""
        raise InputError(f"cannot resume {out} with another configuration: {other}{epochs}")
    extended = Study(study.base, axes)
    folders = {run.folder for run in extended.runs}
    if lost := [run.folder for run in begun.runs if run.folder not in folders]:
        raise InputError(f"cannot resume {out} with these values: {lost[0]} would have another name")
    return extended


def _check_data(finished: list[tuple[StudyRun, dict[str, Any]]]) -> None:
    """Compare what finished runs have read that are configured to read the same.

    Raises:
        InputError: two of them read other images or labels, and which.
    """
    first: dict[str, tuple[StudyRun, dict[str, Any]]] = {}
    for run, metrics in finished:
        values = _data(to_dict(run.config))
        for key in (_text([values, run.seed]), _text(values)):
            earlier, others = first.setdefault(key, (run, metrics))
            if split := _other_split(others, metrics, earlier.seed == run.seed):
                raise InputError(
                    f"{earlier.folder} and {run.folder} read other data ({split}), which changed between them; "
                    "without the folder of one, --resume runs it again"
                )


def _other_split(one: dict[str, Any], other: dict[str, Any], same_seed: bool) -> str | None:
    """The first split in which two runs read other data than the seed explains."""
    names, others = one.get("splits", {}), other.get("splits", {})
    by_seed = set()
    if not same_seed:  # which draws splits, whose images have no names, and cuts train from val, or all three
        cut = {split for split in names if names[split] != others.get(split)}
        by_seed = ({*one["data"]} - {*names}) | (cut if cut >= {"train", "val"} else set())
    unlike = (split for split, digest in one["data"].items() if digest != other["data"].get(split))
    return next((split for split in unlike if split not in by_seed), None)


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


def _text(values: Any) -> str:
    return json.dumps(values, sort_keys=True)
