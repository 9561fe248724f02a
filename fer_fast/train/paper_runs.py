"""Finished runs beside the papers' tables: the row a run is of, what it did otherwise, and the mean of several."""

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from fer_fast.errors import InputError
from fer_fast.train.checkpoint import read_json
from fer_fast.train.config import RunConfig, file_layer, from_dict, recipe_layer, to_dict
from fer_fast.train.folder import STUDY, check_finished
from fer_fast.train.nested import lay_over, leaves
from fer_fast.train.papers import Paper, Recipe

# What tells where a run was made, or which of several equal ones it is.
FREE = {"recipe", "root", "test_root", "seed", "data.fold", "data.order", "hardware"}
PRECISION = "hardware.precision"  # alone of hardware: it makes other numbers
# Less of these is a cut.
SIZES = {"epochs", "iterations", "augment.size", "data.image_size", "enrol.samples", "enrol.verify"}
MOST = 3  # differences that are told of a run that is of no row
NEEDED = {"accuracy", "classes", "confusion_matrix", "per_class"}


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        folder: its own.
        given: that of the study it belongs to, else its own.
        metrics, config: metrics.json and config.yaml; an evaluation of enrolled classes has no configuration, {}.
    """

    folder: Path
    given: Path
    metrics: dict[str, Any]
    config: dict[str, Any]


class Number(NamedTuple):
    """The mean over runs, and the deviation where there are several; None where it is not defined."""

    mean: float | None
    deviation: float | None


@dataclass(frozen=True)
class Result:
    """Runs of one row that agree in everything but seed and fold.

    Attributes:
        runs: at least one.
        differences: what they did otherwise than the row; empty for nothing.
    """

    runs: tuple[Finished, ...]
    differences: str = ""

    @property
    def notes(self) -> list[str]:
        """What the runs say of their data, such as an official part that is not there."""
        return list(dict.fromkeys(note for run in self.runs for note in run.metrics.get("notes", ())))

    def number(self, metric: str) -> Number:
        """One number of `Cell.metric`.

        Runs of the same seed and fold are averaged first, then folds, or their confusion matrices added. The deviation
        is over seeds; over the folds of one.
        """
        seeds = defaultdict(list)
        for (seed, _), runs in _repeats(self.runs).items():
            seeds[seed].append([run.metrics for run in runs])
        folds = [_values(repeats, metric) for repeats in seeds.values()]
        means = [fmean(values) for values in folds if values]
        spread = means if len(means) > 1 else [value for values in folds for value in values]
        return Number(fmean(means) if means else None, stdev(spread) if len(spread) > 1 else None)


def read_runs(folder: Path, study: Path | None = None) -> list[Finished]:
    """The run of a folder, or all runs of a study.

    Raises:
        InputError: no such folder, a run in it that is not finished or damaged, or a study of what is no run in it.
    """
    check_finished(folder)
    metrics = read_json(folder / "metrics.json")
    if (folder / STUDY).exists():
        if study:
            raise InputError(f"{study / 'metrics.json'} is damaged: {folder} is a study, not a run")
        return [run for inside in _inside(folder, metrics.get("runs")) for run in read_runs(inside, folder)]
    if missing := NEEDED - metrics.keys():
        raise InputError(f"{folder / 'metrics.json'} is damaged: it has no {min(missing)}")
    return [Finished(folder, study or folder, metrics, {} if "enrol" in metrics else _configuration(folder))]


def _inside(study: Path, runs: Any) -> list[Path]:
    """The folders of the runs that a study names, all in its own."""
    named = [run.get("folder") if isinstance(run, dict) else None for run in runs] if isinstance(runs, list) else []
    if not named or not all(isinstance(name, str) for name in named):
        raise InputError(f"{study / 'metrics.json'} is damaged: it names no runs")
    for name in named:
        if not (study / name).resolve().is_relative_to(study.resolve()):
            raise InputError(f"{study / 'metrics.json'} is damaged: {name} is not in the folder of the study")
    return [study / name for name in named]


def place(paper: Paper, runs: Iterable[Finished]) -> tuple[dict[str, list[Result]], dict[Path, str]]:
    """Find the rows that runs are of. A run stands in every row that makes the same run.

    Returns:
        Name of a recipe, or of a table of enrolled classes -> results; and folder -> why the run is of no row.
    """
    groups: dict[tuple[str, str], list[Finished]] = defaultdict(list)
    strays = {}
    for run in {run.folder.resolve(): run for run in runs}.values():
        name, words = _enrolled(paper, run) if "enrol" in run.metrics else _row_of(paper, run)
        if name is None:
            strays[run.folder] = words
        else:
            groups[name, words].append(run)
    results = defaultdict(list)
    for (name, words), members in groups.items():
        recipe = paper.recipes.get(name)
        lacking = _lacking_folds(recipe, members) if recipe else ""
        most = max(map(len, _repeats(members).values()))
        repeated = f"{most} runs of the same seed and fold" if most > 1 else ""
        result = Result(tuple(members), "; ".join(filter(None, (lacking, repeated, words))))
        for twin in same_run(paper, recipe) if recipe else (name,):
            results[twin].append(result)
    return results, strays


def same_run(paper: Paper, recipe: Recipe) -> list[str]:
    """Names of the recipes of a paper that make the same run, the given one included."""

    def key(other: Recipe) -> tuple:
        return other.folds, other.weights, settled(other.name)

    return [other.name for other in paper.recipes.values() if key(other) == key(recipe)]


def _row_of(paper: Paper, run: Finished) -> tuple[str | None, str]:
    """Name of the row and what the run did otherwise, or None and why it is of none."""
    named = run.config["recipe"]
    if named in paper.recipes:
        recipe = paper.recipes[named]
        return same_run(paper, recipe)[0], _words(_differences(recipe, run.config))
    if "/" in named:
        return None, f"it is of {named}"
    found = {name: _differences(recipe, run.config) for name, recipe in paper.recipes.items()}
    nearest = min(found, key=lambda name: len(found[name]))
    if {key for key, *_ in found[nearest]} - {PRECISION}:
        return None, f"no row has its settings; nearest is {nearest}, {_words(found[nearest], MOST)}"
    return nearest, _words(found[nearest])


def _enrolled(paper: Paper, run: Finished) -> tuple[str | None, str]:
    tables = [table for table in paper.tables.values() if table.enrol]
    if not tables:
        return None, "its classes were enrolled; no table of this paper has such"
    (table,), how = tables, run.metrics["enrol"]
    names = [cell.metric.split(".")[1] for cells in table.rows.values() for cell in cells if "per_class" in cell.metric]
    if lacking := [name for name in names if name not in run.metrics["classes"]]:
        return None, f"it enrolled other classes than {table.name}, whose {lacking[0]} is not among them"
    otherwise = [(f"enrol.{key}", how.get(key), row) for key, row in table.enrol.items() if how.get(key) != row]
    if (trained := run.metrics.get("recipe")) not in paper.recipes:
        otherwise.append(("recipe of the checkpoint", trained, table.trained))
    return table.name, _words(otherwise)


def _lacking_folds(recipe: Recipe, runs: list[Finished]) -> str:
    fewest = min(Counter(seed for seed, _ in _repeats(runs)).values())
    return f"cut: folds {fewest} of {recipe.folds}" if fewest < recipe.folds else ""


def _repeats(runs: Iterable[Finished]) -> dict[tuple[Any, Any], list[Finished]]:
    """Seed and fold -> runs of both; without a fold it is the first. Enrolled classes are drawn anew each time."""
    repeats = defaultdict(list)
    for run in runs:
        about = (run.config["seed"], run.config["data"]["fold"] or 1) if run.config else (None, run.folder)
        repeats[about].append(run)
    return repeats


def _differences(recipe: Recipe, config: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys whose values differ, with that of the run and that of the row."""
    run, row = comparable(config), dict(settled(recipe.name))
    if row["model.geometry"] == "auto":
        row["model.geometry"] = run["model.geometry"]
    if recipe.weights:
        row["model.weights"] = run["model.weights"] or recipe.weights
    return [(key, run.get(key), row.get(key)) for key in dict.fromkeys((*row, *run)) if run.get(key) != row.get(key)]


def _words(differences: list[tuple[str, Any, Any]], most: int | None = None) -> str:
    """What was cut and what was changed, another dataset first; the rest of `most` as their number."""
    cut, changed = [], []
    for key, run, row in sorted(differences, key=lambda each: each[0] != "dataset")[:most]:
        if key in SIZES and run and row and run < row:
            cut.append(f"{key} {run} of {row}")
        elif key == "iterations" and run and not row:  # which has as many as its epochs make
            cut.append(f"iterations {run}")
        else:
            changed.append(f"{key} {'none' if run is None else run} for {'none' if row is None else row}")
    kinds = [("cut", cut), ("changed", changed)]
    if any(key == "dataset" for key, *_ in differences):
        kinds.reverse()
    words = "; ".join(f"{kind}: {', '.join(lines)}" for kind, lines in kinds if lines)
    rest = len(differences) - len(cut) - len(changed)
    return f"{words} and {rest} more" if rest else words


@functools.cache
def settled(name: str) -> dict[str, Any]:
    """What a recipe resolves to, by dotted keys."""
    return comparable(lay_over(to_dict(RunConfig()), recipe_layer(name)))


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of a configuration that make a run another run, dotted, with their values."""
    return {
        key: value
        for key, value in leaves(config)
        if key == PRECISION or (not {key, key.split(".")[0]} & FREE and value != {})
    }


def _values(folds: list[list[dict[str, Any]]], path: str) -> list[float]:
    """A number of each fold, the mean over its runs that have it; of confusions one number, of the added matrices."""
    kind, _, rest = path.partition(".")
    if kind == "confusion":
        return _share(folds, *rest.split("."))
    of_folds = (
        [functools.reduce(lambda inner, key: (inner or {}).get(key), path.split("."), each) for each in repeats]
        for repeats in folds
    )
    found = ([value for value in values if value is not None] for values in of_folds)
    return [fmean(values) for values in found if values]


def _share(folds: list[list[dict[str, Any]]], truth: str, predicted: str) -> list[float]:
    hits = total = 0
    for repeats in folds:
        for each in repeats:
            if truth in each["classes"]:
                row = dict(zip(each["classes"], each["confusion_matrix"][each["classes"].index(truth)], strict=True))
                hits += row.get(predicted, 0) / len(repeats)
                total += sum(row.values()) / len(repeats)
    return [hits / total] if total else []


def _configuration(folder: Path) -> dict[str, Any]:
    try:
        return to_dict(from_dict(file_layer(folder / "config.yaml")))
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
