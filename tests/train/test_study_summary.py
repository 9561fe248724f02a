"""The numbers of studies against those of numpy."""

import itertools
import json

import numpy as np
import pytest

from fer_fast.train.shown import HEADLINES
from fer_fast.train.study_summary import summarise


def results(points, seed_count, fold_count, *, undefined=()):
    """Runs of random numbers, with two images at least of each of three classes."""
    generator = np.random.default_rng(1)
    rows = []
    for place in itertools.product(points, range(seed_count), range(1, fold_count + 1)):
        point, seed, fold = place
        values = generator.random(len(HEADLINES) + 1).tolist()
        row = dict(zip((*HEADLINES, "val_accuracy"), values, strict=True))
        if len(rows) in undefined:
            row["auc"] = None
        confusion = generator.integers(1, 9, (3, 3)).tolist()
        about = {"folder": "/".join(map(str, place)), "point": {"s": point}, "seed": seed, "fold": fold}
        shared = {"classes": ["a", "b", "c"], "split": "test", "data": {"test": f"digest {fold}"}}
        rows.append({**row, **about, **shared, "confusion_matrix": confusion, "epoch": 3, "seconds": 1.5})
    return rows


def numpy_numbers(rows, key, shape):
    """Means over the folds of each seed, whose mean and deviation count."""
    values = np.array([np.nan if row[key] is None else row[key] for row in rows], float).reshape(shape)
    means = np.nanmean(values, 1)
    return means.mean(), means.std(ddof=1)


def test_numbers_of_a_grid_are_those_of_numpy():
    rows = results(points := (20, 30, 40), 4, 5, undefined=(3, 22))
    summary = summarise({"s": points, "seed": range(4), "data.fold": range(1, 6)}, rows)
    by_point = {point: [row for row in rows if row["point"]["s"] == point] for point in points}
    means = {point: numpy_numbers(mine, "val_accuracy", (4, 5))[0] for point, mine in by_point.items()}
    ranking = sorted(points, key=means.__getitem__, reverse=True)
    by_test = {point: numpy_numbers(mine, "accuracy", (4, 5))[0] for point, mine in by_point.items()}
    assert ranking[0] != max(by_test, key=by_test.__getitem__)  # or this would not tell one choice from the other
    assert [row["point"]["s"] for row in summary["points"]] == ranking
    assert summary["chosen"] == {"s": ranking[0]}
    for row in summary["points"]:
        mine = by_point[row["point"]["s"]]
        assert row["runs"] == [run["folder"] for run in mine]
        for key in (*HEADLINES, "val_accuracy"):
            assert (row["mean"][key], row["deviation"][key]) == pytest.approx(
                numpy_numbers(mine, key, (4, 5)), abs=1e-12
            )
    best = summary["points"][0]
    assert {key: summary[key] for key in best["mean"]} == best["mean"]
    assert (summary["deviation"], summary["deviation_over"]) == (best["deviation"], "seed")
    assert (summary["seconds"], summary["split"]) == (90, "test")
    assert "data" not in summary  # the folds have different images
    assert "epoch" not in summary

    confusion = np.sum([run["confusion_matrix"] for run in by_point[ranking[0]]], 0)
    assert summary["confusion_matrix"] == confusion.tolist()
    recall, precision = np.diag(confusion) / confusion.sum(1), np.diag(confusion) / confusion.sum(0)
    assert summary["images"] == confusion.sum()
    assert summary["pooled"]["accuracy"] == pytest.approx(np.trace(confusion) / confusion.sum())
    assert summary["pooled"]["average_accuracy"] == pytest.approx(recall.mean())
    f1 = 2 * precision * recall / (precision + recall)
    assert summary["pooled"]["macro_f1"] == pytest.approx(f1.mean())
    chance = (confusion.sum(0) * confusion.sum(1)).sum() / confusion.sum() ** 2
    kappa = (np.trace(confusion) / confusion.sum() - chance) / (1 - chance)
    assert summary["pooled"]["cohen_kappa"] == pytest.approx(kappa, abs=1e-6)
    for place, name in enumerate("abc"):
        row = summary["per_class"][name]
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx(
            (precision[place], recall[place], f1[place])
        )
        assert row["support"] == confusion[place].sum()
    assert len(json.dumps(summary, allow_nan=False)) > 0


@pytest.mark.parametrize(
    ("seed_count", "fold_count", "over"), [(3, 1, "seed"), (1, 10, "fold"), (1, 1, None), (2, 3, "seed")]
)
def test_deviations_run_over_seeds_or_else_over_folds(seed_count, fold_count, over):
    rows = results((None,), seed_count, fold_count)
    for row in rows:
        row["point"] = {}
    summary = summarise({}, rows)
    values = np.array([row["macro_f1"] for row in rows]).reshape(seed_count, fold_count)
    sample = values.mean(1) if seed_count > 1 else values[0]
    assert summary["macro_f1"] == pytest.approx(values.mean())
    deviation = summary["deviation"]["macro_f1"]
    assert deviation is None if over is None else deviation == pytest.approx(sample.std(ddof=1))
    assert (summary["deviation_over"], summary["points"], summary["chosen"]) == (over, [], {})


def test_notes_tell_which_runs_they_are_of():
    rows = results((20,), 1, 3)
    for row, notes in zip(rows, (["all", "two", "one"], ["all", "two"], ["all"]), strict=True):
        row["notes"] = notes
    lines = ["all", "20/0/1: two", "20/0/1: one", "20/0/2: two"]
    assert summarise({"data.fold": (1, 2, 3)}, rows)["notes"] == lines


def test_points_that_lack_a_run_take_no_part():
    rows = results((20, 30), 2, 3)
    best = max(rows, key=lambda row: row["val_accuracy"])["point"]
    lost = next(row for row in rows if row["point"] == best)
    failed = [{"folder": lost["folder"], "error": "no"}]
    rows.remove(lost)
    summary = summarise({"s": (20, 30), "seed": (0, 1), "data.fold": (1, 2, 3)}, rows, failed)
    other = [row for row in rows if row["point"] != best]
    assert [point["runs"] for point in summary["points"]] == [[row["folder"] for row in other]]
    assert summary["accuracy"] == pytest.approx(np.mean([row["accuracy"] for row in other]))
    assert (len(summary["runs"]), summary["failed"]) == (11, failed)


def test_numbers_that_no_run_has_stay_undefined():
    rows = results((1,), 2, 1, undefined=(0, 1))
    summary = summarise({}, rows)
    assert (summary["auc"], summary["deviation"]["auc"]) == (None, None)
    rows = results((1,), 2, 1, undefined=(1,))
    summary = summarise({}, rows)
    assert (summary["auc"], summary["deviation"]["auc"]) == (rows[0]["auc"], None)
