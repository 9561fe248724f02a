"""The numbers of a study, from those of its runs."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import fmean, stdev
from typing import Any

from fer_fast.train.shown import HEADLINES, REPEATS

_MEANS = (*HEADLINES, "val_accuracy")
_ABOUT = ("folder", "point", "seed", "fold")
_OWN = (*_ABOUT, *_MEANS, "intervals", "epoch", "seconds")  # what `runs` tells of each run
_OF_A_SITTING = (
    "date",
    "command",
    "commit",
    "resumed",
)  # a study that was killed has more of them, and the same numbers


def complete(
    axes: dict[str, Sequence[Any]], runs: Iterable[dict[str, Any]]
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every point that has all of its runs, with these."""
    repeats = math.prod(len(axes.get(key, (None,))) for key in REPEATS)
    points = [(point, list(members)) for point, members in groupby(runs, key=lambda run: run["point"])]
    return [(point, members) for point, members in points if len(members) >= repeats]


def summarise(
    axes: dict[str, Sequence[Any]], runs: Sequence[dict[str, Any]], failed: Sequence[dict[str, str]] = ()
) -> dict[str, Any]:
    """The metrics.json of a study.

    Runs of one point differ by seed and fold alone. A point's numbers are means: first over the folds of each seed,
    then over seeds. The deviation is that of a sample, √(Σ(x - x̄)² / (n - 1)), over the seeds' means; over the folds
    where there is one seed. A number that is undefined in a run (None) takes no part in either. Points are ranked by
    validation accuracy alone, so that no number on the test split is chosen by itself.

    Args:
        axes: of the study, key -> values.
        runs: in the order of the study, the metrics of each with ``folder``, ``point`` (key -> value), ``seed``,
            ``fold`` and ``val_accuracy``. At least one point has all of its runs; one that has not takes no part.
        failed: ``folder`` and ``error`` of the runs that are not there.

    Returns:
        The keys of a run's metrics.json, of the point with the best validation accuracy: headline numbers are means,
        ``confusion_matrix`` is a sum, ``per_class`` and ``images`` follow from it, ``seconds`` are those of all runs,
        what all runs of the point agree on is kept. Besides: ``deviation`` {key: number or None}, ``deviation_over``
        ("seed", "fold" or None), ``pooled`` {key: number of the summed confusion matrix}, ``notes`` (with the
        folder of the run where not all runs of the point have the same), ``axes``,
        ``chosen`` (that point), ``points`` [{point, mean, deviation, runs}] by validation accuracy, none without a
        grid, ``failed`` if any, and ``runs`` [{folder, point, seed, fold, headline numbers, val_accuracy, intervals,
        epoch, seconds}].
    """
    points = complete(axes, runs)
    ranked = sorted(
        (
            {"point": point, **_reduced(members), "runs": [run["folder"] for run in members]}
            for point, members in points
        ),
        key=lambda row: -math.inf if row["mean"]["val_accuracy"] is None else row["mean"]["val_accuracy"],
        reverse=True,
    )
    best = ranked[0]
    members = next(members for point, members in points if point == best["point"])
    confusion = [[sum(cells) for cells in zip(*rows, strict=True)] for rows in _zipped(members, "confusion_matrix")]
    pooled = _of_confusion(confusion, members[0]["classes"])
    return {
        **_alike(members),
        **best["mean"],
        "deviation": best["deviation"],
        "deviation_over": _units(members)[0],
        "notes": _notes(members),
        "pooled": {key: pooled[key] for key in HEADLINES if key in pooled},
        "per_class": pooled["per_class"],
        "confusion_matrix": confusion,
        "images": sum(map(sum, confusion)),
        "seconds": math.fsum(run["seconds"] for run in runs),
        "axes": {key: list(values) for key, values in axes.items()},
        "chosen": best["point"],
        "points": ranked if best["point"] else [],
        "runs": [{key: run[key] for key in _OWN if key in run} for run in runs],
        **({"failed": [*failed]} if failed else {}),
    }


def _reduced(members: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Mean and deviation of every number of a point's runs."""
    mean, deviation = {}, {}
    groups = _units(members)[1]
    for key in _MEANS:
        means = (_mean(run[key] for run in group) for group in groups)
        values = [value for value in means if value is not None]
        mean[key] = _mean(values)
        deviation[key] = stdev(values) if len(values) > 1 else None
    return {"mean": mean, "deviation": deviation}


def _units(members: list[dict[str, Any]]) -> tuple[str | None, list[list[dict[str, Any]]]]:
    """What a deviation runs over, and the runs that make each of its values."""
    seeds = [list(group) for _, group in groupby(members, key=lambda run: run["seed"])]
    if len(seeds) > 1:
        return "seed", seeds
    return "fold" if len(members) > 1 else None, [[run] for run in members]


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else None


def _zipped(members: list[dict[str, Any]], key: str) -> Iterable[tuple[Any, ...]]:
    return zip(*(run[key] for run in members), strict=True)


def _alike(members: list[dict[str, Any]]) -> dict[str, Any]:
    """What all these runs say alike, such as the classes, apart from what `runs` tells of each."""
    first, *others = members
    return {
        key: value
        for key, value in first.items()
        if key not in (*_OWN, *_OF_A_SITTING) and all(key in run and run[key] == value for run in others)
    }


def _notes(members: list[dict[str, Any]]) -> list[str]:
    """What the runs say of their data, once where all say it, else each with its run."""
    lines = [(run["folder"], line) for run in members for line in dict.fromkeys(run.get("notes", ()))]
    count = Counter(line for _, line in lines)
    return list(dict.fromkeys(line if count[line] == len(members) else f"{run}: {line}" for run, line in lines))


def _of_confusion(confusion: list[list[int]], classes: Sequence[str]) -> dict[str, Any]:
    """Metrics of the pairs of truth and prediction that a confusion matrix counts."""
    import torch

    from fer_fast.train.metrics import of_confusion  # torchmetrics takes seconds to import

    return of_confusion(torch.tensor(confusion), classes)
