"""The page of a study and its tables on the terminal: complete, in the order of validation accuracy, for any study."""

import itertools
import re
from statistics import fmean, stdev
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from fer_fast.cli.summary import print_metrics, print_study
from fer_fast.errors import InputError
from fer_fast.train import figures
from fer_fast.train.metrics import evaluate
from fer_fast.train.shown import HEADLINES, duration, spread
from fer_fast.train.study_report import write_study_report
from html_page import Page

CLASSES = ("neutral", "happiness", "sadness")
S, M = "objective.options.lmcl.s", "objective.options.lmcl.m"


def study(axes: dict, classes=CLASSES, accuracy=lambda at: 0.7, validation=lambda at: 0.8) -> dict:
    """Arguments of a page on runs whose accuracy at a combination of values is what the functions say."""
    runs = []
    for values in itertools.product(*axes.values()):
        at = dict(zip(axes, values, strict=True))
        folder = "/".join(f"{key.rpartition('.')[2]}-{value}" for key, value in at.items())
        point = {key: value for key, value in at.items() if key not in ("seed", "data.fold")}
        numbers = {**dict.fromkeys(HEADLINES, 0.5), "accuracy": accuracy(at), "val_accuracy": validation(at)}
        runs.append({"folder": folder, "point": point, **numbers, "epoch": 17, "seconds": 61.0})
    points = [_point(point, list(members)) for point, members in itertools.groupby(runs, key=lambda run: run["point"])]
    chosen = max(points, key=lambda point: point["mean"]["val_accuracy"] or 0)
    labels = torch.arange(90) % len(classes)
    numbers = evaluate(labels, torch.eye(len(classes))[labels.roll(20)], classes)
    del numbers["intervals"]  # each run has its own
    summary = {
        **numbers,
        **chosen["mean"],
        "intervals": {},  # which the mean of several runs has not
        "deviation": chosen["deviation"],
        "axes": {key: list(values) for key, values in axes.items()},
        "runs": runs,
        "points": points if chosen["point"] else [],
        **{"split": "test", "seconds": 61.0 * len(runs)},
    }
    rows = [{"epoch": epoch, "val_accuracy": 0.1 * epoch} for epoch in range(1, 4)]
    return {"title": "lmcl · ckplus", "summary": summary, "histories": {run["folder"]: rows for run in runs}}


def _point(point: dict, members: list[dict]) -> dict:
    columns = {key: [run[key] for run in members] for key in (*HEADLINES, "val_accuracy")}
    return {
        "point": point,
        "mean": {key: None if None in column else fmean(column) for key, column in columns.items()},
        "deviation": {key: stdev(column) if len(members) > 1 else None for key, column in columns.items()},
        "runs": [run["folder"] for run in members],
    }


def written(path, **arguments) -> Page:
    write_study_report(path / "report.html", **arguments)
    text = (path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)", text)
    page = Page(text)
    assert "script" not in page.tags
    return page


def test_means_deviations_and_runs_are_on_the_page(tmp_path):
    arguments = study({"seed": (0, 1, 2)}, accuracy=lambda at: (0.5, 0.6, 0.7)[at["seed"]])
    summary = arguments["summary"]
    summary["runs"][1]["intervals"] = {"accuracy": [0.58, 0.6234]}
    summary |= {"pooled": {"accuracy": 0.6123}, "notes": ["fold 10 has no fear: its mean is over the classes present"]}
    summary |= {"command": "fer-fast train --seeds 3", "versions": {"torch": "2.99"}, "config": {"loss": "lmcl"}}
    page = written(tmp_path, **arguments)
    for shown in (
        "3 runs · 3 seeds · 3 min 3 s",
        "60.0 % ± 10.0 Accuracy",
        "0.500 ± 0.000 Macro F1",
        "Mean ± sample deviation over 3 seeds.",
        "fold 10 has no fear: its mean is over the classes present",
        "seed-1 60.0 [58.0, 62.3] 50.0 0.500 80.0 17 1 min 1 s",
        "The sum over 3 runs. Of the sum: Accuracy 61.2 %.",
        "Where it comes from command fer-fast train --seeds 3 Configuration loss lmcl Versions torch 2.99",
    ):
        assert shown in page.words
    assert [link for link in page.links if not link.startswith("#")] == [f"seed-{n}/report.html" for n in range(3)]
    assert "Settings" not in page.words
    assert page.tags.count("svg") == 1


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"data.fold": range(1, 11)}, "over 10 folds."),
        ({"seed": range(5), "data.fold": range(1, 11)}, "over 5 seeds, each the mean over 10 folds."),
        ({"seed": (3,), "data.fold": range(1, 11)}, "over 10 folds."),
        ({S: (20, 30), "seed": (3, 4)}, "over 2 seeds."),
    ],
)
def test_what_a_deviation_is_over(axes, words):
    assert spread(axes) == f"Mean ± sample deviation {words}"


def test_a_single_run_has_no_deviation(tmp_path):
    page = written(tmp_path, **study({"seed": (0,)}))
    assert "1 run · 1 seed · 1 min 1 s" in page.words
    assert "±" not in page.words


RIVALS = {20: (0.6, 0.8), 30: (0.9, 0.5), 40: (None, 0.99), 50: (0.7, 0.7)}  # s -> validation and test accuracy


def test_points_are_ranked_by_validation_and_never_by_test(tmp_path):
    arguments = study({S: RIVALS}, accuracy=lambda at: RIVALS[at[S]][1], validation=lambda at: RIVALS[at[S]][0])
    page = written(tmp_path, **arguments)
    assert "chosen by validation accuracy; test is only reported" in page.words
    assert "At s 30, which has the best mean validation accuracy." in page.words
    assert "30 90.0 50.0 50.0 0.500 50 70.0 70.0 50.0 0.500 20 60.0 80.0 50.0 0.500 40 – 99.0 50.0 0.500" in page.words
    assert "50.0 % Accuracy" in page.words
    assert "The sum over 1 run at s 30." in page.words
    assert page.tags.count("svg") == 2  # along s, and over epochs


def test_two_axes_make_heat_maps(tmp_path):
    def validation(at):
        return {(20, 0.3): 0.5, (20, 0.4): 0.6, (30, 0.3): 0.7, (30, 0.4): 0.9}[at[S], at[M]]

    arguments = study({S: (20, 30), M: (0.3, 0.4)}, accuracy=lambda at: 1 - validation(at), validation=validation)
    page = written(tmp_path, **arguments)
    assert "Validation accuracy, % s ↓ m → 0.3 0.4 20 50.0 60.0 30 70.0 90.0" in page.words
    assert "Test accuracy, % s ↓ m → 0.3 0.4 20 50.0 40.0 30 30.0 10.0" in page.words
    cells = [each for each in page.elements if "rgb(var(--accent)" in each.get("style", "")][:8]
    # From 0.05 for the lowest of a map to 0.95 for its highest.
    assert [float(re.search(r"/ ([\d.]+)\)", cell["style"])[1]) for cell in cells] == pytest.approx(
        [0.05, 0.275, 0.5, 0.95, 0.95, 0.725, 0.5, 0.05], abs=1e-3
    )
    assert [index for index, cell in enumerate(cells) if "best" in cell["class"]] == [3, 7]


@pytest.mark.parametrize(("losses", "maps"), [(3, 6), (6, 12), (7, 0)])
def test_an_axis_further_out_has_maps_of_its_own_where_they_are_few(tmp_path, losses, maps):
    arguments = study({"loss": [f"loss {n}" for n in range(losses)], S: (20, 30), M: (0.3, 0.4)})
    page = written(tmp_path, **arguments)
    assert page.words.count("s ↓ m →") == maps
    assert ("Test accuracy · loss loss 2, %" in page.words) == (maps > 0)
    assert f"loss {losses - 1} 30 0.4 80.0 70.0 50.0 0.500" in page.words


@pytest.mark.parametrize(
    ("key", "values"), [("loss", ("softmax", "lmcl")), (S, (30,)), ("data.balanced", (True, False))]
)
def test_an_axis_without_numbers_has_the_table_alone(tmp_path, key, values):
    page = written(tmp_path, **study({key: values}))
    assert f"{key.rpartition('.')[2]} {', '.join(map(str, values))}" in page.words
    assert f"{values[0]} 80.0 70.0 50.0 0.500" in page.words
    assert page.tags.count("svg") == 1


def test_the_plot_along_an_axis_shows_numbers_and_deviations():
    """Read back from the drawing: decades are equal steps, heights and bars in the proportion of the values."""
    series = {"Validation": [(0.2, 0.1), (0.4, None), (0.6, 0.05)]}
    root = ElementTree.fromstring(figures.axis_plot([0.001, 0.01, 0.1], series, label="rate"))
    drawn = [
        np.array(re.findall(r"[ML] (\S+) (\S+)", node.get("d")), dtype=float)
        for node in root.iter("{http://www.w3.org/2000/svg}path")
        if node.get("d") and "z" not in node.get("d") and node.get("clip-path")
    ]
    (line,) = (points for points in drawn if len(points) == 3)
    np.testing.assert_allclose(np.diff(line[:, 0], 2), 0, atol=1e-3)
    np.testing.assert_allclose((line[0, 1] - line[1:, 1]) / (line[0, 1] - line[2, 1]), [0.5, 1], atol=1e-3)
    unit = (line[0, 1] - line[2, 1]) / 0.4  # of the picture, for a difference of 1
    bars = [np.ptp(points[:, 1]) / unit for points in drawn if len(points) == 2 and np.ptp(points[:, 0]) == 0]
    assert {0.2, 0.1} <= {round(float(height), 3) for height in bars}


def test_a_long_axis_is_named_by_its_length(tmp_path):
    page = written(tmp_path, **study({S: range(20, 50)}))
    assert "30 runs · 30 values of s" in page.words
    assert page.tags.count("svg") == 2


def test_names_stand_beside_up_to_eight_curves(tmp_path):
    page = written(tmp_path, **study({"seed": range(8)}))
    assert page.words.count("seed-7") == 2  # legend and table
    page = written(tmp_path, **study({"seed": range(9)}))
    assert page.words.count("seed-7") == 1


def test_names_cannot_break_the_page(tmp_path):
    nasty = ("<script>alert(1)</script>", "$\\frac{", 'a" onload="x')
    arguments = study({"loss": nasty, "<i>": ("<b>", "&")}, classes=nasty)
    arguments["title"] = "<img src=x onerror=y>"
    arguments["summary"]["notes"] = ["</ul><script>"]
    page = written(tmp_path, **arguments)
    assert not [name for name in page.attributes if name.startswith("on")]
    for name in (*nasty, arguments["title"], "<b>", "</ul><script>"):
        assert name in page.words
    assert all(re.fullmatch(r"[\w/.%~-]+", link) for link in page.links if not link.startswith("#"))


def test_a_hundred_runs_of_sixty_classes(tmp_path):
    arguments = study({"seed": range(100)}, classes=tuple(f"class {n}" for n in range(60)))
    page = written(tmp_path, **arguments)
    assert page.words.count("1 min 1 s") == 100
    assert "class 59" in page.words
    assert (tmp_path / "report.html").stat().st_size < 1_000_000


def test_what_is_missing_or_no_number_is_left_out(tmp_path):
    arguments = study({"seed": (0, 1)})
    run = arguments["summary"]["runs"][0]
    run |= {"accuracy": None, "val_accuracy": None}
    del run["epoch"], run["seconds"], run["macro_f1"], arguments["summary"]["points"]
    arguments["histories"] = {"seed-0": [], "seed-1": [{"epoch": 1, "val_accuracy": float("nan")}]}
    arguments["summary"]["auc"] = arguments["summary"]["deviation"]["auc"] = None
    page = written(tmp_path, **arguments)
    assert "seed-0 – 50.0 – – – –" in page.words
    assert "– AUC" in page.words
    assert "svg" not in page.tags


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write_study_report(tmp_path / "missing" / "report.html", **study({"seed": (0,)}))


def test_a_study_on_the_terminal(capsys):
    arguments = study({"seed": (0, 1, 2)}, accuracy=lambda at: (0.5, 0.6, 0.7)[at["seed"]])
    print_study(arguments["summary"])
    printed = capsys.readouterr().out
    assert "test split; 3 runs took 3 min 3 s" in printed
    assert re.search(r"^seed-2 +0\.8000 +0\.7000 +0\.5000 +0\.5000 +17 +1 min 1 s$", printed, re.MULTILINE)
    assert re.search(r"^accuracy +0\.6000  ± 0\.1000", printed, re.MULTILINE)
    assert max(map(len, printed.splitlines())) <= 80


def test_a_grid_on_the_terminal_is_ranked_by_validation(capsys):
    arguments = study({S: RIVALS}, accuracy=lambda at: RIVALS[at[S]][1], validation=lambda at: RIVALS[at[S]][0])
    print_study(arguments["summary"])
    printed = capsys.readouterr().out
    assert re.findall(r"^s (\d+)  ", printed, re.MULTILINE) == ["30", "50", "20", "40"]
    assert "s 30: chosen by validation accuracy, test is only reported" in printed
    assert re.search(r"^accuracy +0\.5000$", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("values", "words"),
    [((0.7, 0.9, 0.9), "tied with 1 other; the first is taken"), ((0.9, 0.9, 0.9 - 1e-12), "tied with 2 others; the")],
)
def test_ties_are_said(values, words, tmp_path, capsys):
    arguments = study({S: (0, 1, 2)}, validation=lambda at: values[at[S]])
    assert words in written(tmp_path, **arguments).words
    print_study(arguments["summary"], "lmcl · ckplus")
    printed = capsys.readouterr().out
    assert words in printed
    assert printed.startswith("\nlmcl · ckplus\ntest split; 3 runs took")
    arguments = study({S: (0, 1)}, validation=lambda at: at[S] / 2)
    assert "tied" not in written(tmp_path, **arguments).words


def test_failed_runs_are_on_page_and_terminal(tmp_path, capsys):
    arguments = study({S: (20, 30)})
    arguments["summary"]["failed"] = [{"folder": "s-40", "error": "the loss is <nan>"}]
    assert (
        "Runs that failed; settings that lack a run are left out s-40: the loss is <nan>"
        in written(tmp_path, **arguments).words
    )
    print_study(arguments["summary"])
    assert "failed: s-40: the loss is <nan>" in capsys.readouterr().out.splitlines()


def test_a_run_on_the_terminal(capsys):
    metrics = study({"seed": (0,)})["summary"] | {"images": 90, "seconds": 88.4}
    print_metrics(metrics)
    assert capsys.readouterr().out.endswith("\ntook 1 min 28 s\n")
    metrics |= {"epoch": 3, "epochs": 5, "val_accuracy": 0.8125, "intervals": {"accuracy": [0.53641, 0.56919]}}
    metrics["crops"] = {str(n): {"accuracy": 0.5 + n / 100, "macro_f1": None} for n in (1, 5, 10)}
    print_metrics(metrics)
    printed = capsys.readouterr().out
    assert re.search(r"^accuracy +0\.7000  \[0\.5364, 0\.5692\]", printed, re.MULTILINE)
    assert re.search(r"^10 +0\.6000 +-$", printed, re.MULTILINE)
    assert printed.endswith("\nepoch 3 of 5, validation accuracy 0.8125; the run took 1 min 28 s\n")
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.4, "59.4 s"), (59.6, "1 min 0 s"), (3600, "1 h 0 min"), (90061, "25 h 1 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
