"""The report page: complete, self-contained, safe against hostile names, unbothered by missing or broken numbers."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from fer_fast.errors import InputError
from fer_fast.train import figures
from fer_fast.train.metrics import evaluate
from fer_fast.train.pictured import MOST_MISTAKES, MOST_OF_A_PAIR, MOST_PAIRS
from fer_fast.train.report import write_report
from fer_fast.train.sphere import MOST_POINTS as MOST_ON_SPHERE
from fer_fast.train.sphere import sphere
from html_page import Page
from report_pages import CLASSES, pixels, run, written


def test_everything_is_on_the_page(tmp_path):
    arguments = run()
    metrics = arguments["metrics"]
    metrics |= {"versions": {"torch": "2.99"}, "data": {"test": "c0ffee"}}
    _, page = written(tmp_path, **arguments)
    for heading in ("Learning curves", "Confusion matrix", "Classes", "Features", "Mistakes", "Configuration"):
        assert heading in page.words
    for fact in (arguments["title"], "split test", "40 images", "1 min 23 s", "optimiser.rate 0.1", "2.99", "c0ffee"):
        assert fact in page.words
    assert f"{100 * metrics['accuracy']:.1f} % Accuracy" in page.words
    for key in ("macro_f1", "cohen_kappa", "krippendorff_alpha", "auc", "auc_pr"):
        assert f"{metrics[key]:.3f}" in page.words
    for name, row in metrics["per_class"].items():
        shown = [f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
        assert " ".join((name, str(row["support"]), *shown)) in page.words
    for row in metrics["confusion_matrix"]:
        assert " ".join(f"{100 * count / sum(row):.1f} {count}" for count in row) in page.words


def test_what_later_versions_measure_is_shown(tmp_path):
    arguments = run()
    arguments["metrics"] |= {
        "accuracy": 0.5528,
        "intervals": {"accuracy": [0.5364, 0.5692], "average_accuracy": [0.4, 0.6], "macro_f1": [0.1234, 0.25]},
        "intervals_by": "subject",
        "crops": {
            "1": {"accuracy": 0.5411, "average_accuracy": 0.5, "macro_f1": 0.4567},
            "5": {"accuracy": 0.5528, "average_accuracy": 0.51, "macro_f1": None},
        },
        **{"epoch": 17, "epochs": 20, "val_accuracy": 0.6129, "seconds": 4383.4},
        **{"command": "fer-fast train --recipe <x>", "commit": "d09d820", "recipe": "ecan", "device": {"type": "cpu"}},
    }
    _, page = written(tmp_path, **arguments)
    for shown in (
        "55.3 % [53.6, 56.9] Accuracy",
        "[0.123, 0.250] Macro F1",
        "intervals of 95 % confidence by bootstrap, each subject drawn as a whole",
        "Tested on Accuracy Average accuracy Macro F1 whole image 54.1 50.0 0.457 five crops 55.3 51.0 –",
        "epoch 17 of 20 · validation accuracy 61.3 % · 1 h 13 min",
        "command fer-fast train --recipe <x> recipe ecan commit d09d820 device.type cpu",
    ):
        assert shown in page.words


def test_metrics_of_earlier_versions_are_shown_without_the_rest(tmp_path):
    _, page = written(tmp_path, **run())
    for absent in ("Tested on", "bootstrap", "validation accuracy", "Where it comes from", "["):
        assert absent not in page.words
    metrics = {**run()["metrics"], "crops": {"1": {"accuracy": 0.5}}}  # one view is the headline already
    assert "Tested on" not in written(tmp_path, **run(metrics=metrics))[1].words


@pytest.mark.parametrize("dimensions", [3, 8])
def test_the_page_needs_nothing_from_outside(tmp_path, dimensions):
    text, page = written(tmp_path, **run(features=torch.randn(40, dimensions)))
    assert "script" not in page.tags
    assert all(link.startswith(("#", "data:image/png;base64,", "data:image/jpeg;base64,")) for link in page.links)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text


def test_names_cannot_break_the_page(tmp_path):
    nasty = ("<script>alert(1)</script>", "$\\frac{", 'a" onload="x', "mit Größe & 表情")
    arguments = run(classes=nasty, title="<img src=x onerror=y>", config={"<b>": "</table>"})
    arguments["names"] = tuple(f"<script>{i}</script>" for i in range(40))
    arguments["history"][0]["</svg><script>"] = 1.0
    _, page = written(tmp_path, **arguments)
    assert "script" not in page.tags
    assert not [name for name in page.attributes if name.startswith("on")]
    for name in (*nasty, "</svg><script>", arguments["title"], "<b> </table>"):
        assert name in page.words
    assert re.search(r"<script>\d+</script>", page.words)  # a file's name, as text


def test_a_name_does_not_turn_around_what_stands_behind_it(tmp_path):
    arguments = run(classes=("\u202eabc", "\u2067\u05d0", "c", "d"))
    arguments["names"] = tuple(f"\u202e{i}.png" for i in range(40))
    text, page = written(tmp_path, **arguments)
    shown = re.sub("<svg.*?</svg>", "", text, flags=re.DOTALL)
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", shown)
    for name in (r"\u202eabc", "\\u2067\u05d0", r"\u202e1"):
        assert name in page.words


def test_the_same_run_gives_the_same_page(tmp_path):
    first, _ = written(tmp_path, **run())
    second, _ = written(tmp_path, **run())
    assert first == second


def test_without_history_there_are_no_curves(tmp_path):
    _, page = written(tmp_path, **run(history=[]))
    assert "Learning curves" not in page.words
    assert page.tags.count("svg") == 1  # the map


@pytest.mark.parametrize(
    ("history", "panels"),
    [
        ([{"epoch": 1}], 0),
        ([{"train_loss": 1.0}, {"train_loss": 0.5}], 1),
        ([{"epoch": 1, "train_loss": float("nan"), "val_accuracy": None}], 0),
        ([{"epoch": 1, "train_loss": float("inf")}, {"epoch": 2, "train_loss": 1.0, "val_loss": 2.0}], 2),
        ([{"epoch": 1, "train_loss": "broken", "learning_rate": 0.0}, {"epoch": 2, "learning_rate": 0.1}], 1),
        ([{"epoch": e, "center": e, "affinity": -e, "note": "text"} for e in range(100)], 2),
    ],
)
def test_a_patchy_history(tmp_path, history, panels):
    _, page = written(tmp_path, **run(history=history))
    assert page.tags.count("svg") == panels + 1


def test_a_run_of_one_epoch_has_one_tick():
    drawn = str(figures.curves([{"epoch": 1, "loss": 2.0}], {"loss": "training"}, title="Loss", scale="linear"))
    assert "0.98" not in drawn
    assert re.search(r">\s*1\s*<", drawn)


def test_curves_show_the_logged_values():
    """Read the line back from the drawing: equal steps across, heights in the proportion of the values."""
    values = [1.0, 3.0, 2.0, 5.0]
    svg = figures.curves([{"epoch": e, "x": v} for e, v in enumerate(values, 1)], {"x": "x"}, title="x")
    lines = [node.get("d") for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")]
    drawn = [re.findall(r"[ML] (\S+) (\S+)", d) for d in lines if d and d.count("L") == 3 and "z" not in d]
    ((x, y),) = [np.array(points, dtype=float).T for points in drawn]
    assert np.ptp(np.diff(x)) < 1e-3
    np.testing.assert_allclose((y[0] - y) / (y[0] - y[3]), (np.array(values) - 1) / 4, atol=1e-3)


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (2, 3), (4, 8), (5, 60), (6, 2)])
def test_small_runs_and_many_classes(tmp_path, n, classes):
    _, page = written(tmp_path, **run(n=n, classes=tuple(f"class {c}" for c in range(classes))))
    assert ("No map" in page.words) == (n < 5)


def test_undefined_metrics_show_a_dash(tmp_path):
    labels, scores = torch.zeros(6, dtype=torch.int64), torch.tensor([[1.0, 0, 0]] * 6)
    arguments = run(n=6, labels=labels, scores=scores, metrics=evaluate(labels, scores, CLASSES))
    _, page = written(tmp_path, **arguments)
    assert "– Cohen's κ" in page.words
    assert "happiness 0 – – –" in page.words
    assert "None: every image was recognised." in page.words


@pytest.mark.parametrize(
    ("features", "map_drawn"),
    [
        (torch.zeros(40, 8), False),
        (torch.full((40, 8), 0.1), False),
        (torch.full((40, 8), torch.nan), False),
        (torch.randn(40, 8).index_fill(0, torch.arange(30), torch.inf), True),
        (torch.randn(40, 8) * 1e30, True),
        (torch.randn(40, 8) * 1e-30 + 0.0, True),
        (torch.randn(40, 1), True),
        (torch.randn(40, 3, 4, 2), True),
        (torch.eye(8)[torch.arange(40) % 2], True),
        (torch.randn(40, 8, dtype=torch.bfloat16), True),
        (torch.zeros(40, 0), False),
    ],
)
def test_features_of_every_kind(tmp_path, features, map_drawn):
    _, page = written(tmp_path, **run(features=features, history=[]))
    assert page.tags.count("svg") == map_drawn
    assert ("No map" in page.words) != map_drawn


def test_the_map_keeps_groups_together():
    labels = np.arange(300) % 3
    features = np.random.default_rng(0).normal(size=(300, 20)) + 10 * np.eye(3, 20)[labels]
    points = figures._embed(features)
    centers = np.stack([points[labels == c].mean(0) for c in range(3)])
    nearest = np.linalg.norm(points[:, None] - centers, axis=2).argmin(1)
    assert (nearest == labels).mean() > 0.95


def on_the_sphere(page: Page, kind: str) -> np.ndarray:
    """Places of a page's sphere as unit vectors (n, 3): to the right, up, towards the reader."""
    styles = [attributes["style"] for attributes in page.elements if attributes.get("class") == kind]
    degrees = [re.match(r"--e: (\S+); --n: (\S+);", style).groups() for style in styles]
    east, north = np.radians(np.array(degrees, dtype=float).reshape(-1, 2)).T
    return np.stack((np.sin(east) * np.cos(north), np.sin(north), np.cos(east) * np.cos(north)), axis=1)


def test_three_dimensions_lie_on_a_sphere(tmp_path):
    """Lengths are gone, directions are kept: the third axis up, the second away from the reader."""
    directions = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [0, -1, 0], [3, 4, 12]])
    lengths = torch.tensor([2.0, 1e-20, 1e20, 0.5, 7, 1])[:, None]
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    _, page = written(tmp_path, **run(n=6, features=directions * lengths, labels=labels))
    wanted = [[1, 0, 0], [0, 0, -1], [0, 1, 0], [0, -1, 0], [0, 0, 1], np.array([3, 12, -4]) / 13]
    np.testing.assert_allclose(on_the_sphere(page, "at disc"), wanted, atol=2e-3)
    middle = np.array(wanted)[4:].sum(0)
    wanted = [[np.sqrt(0.5), 0, -np.sqrt(0.5)], middle / np.linalg.norm(middle)]  # class 1 points nowhere on average
    np.testing.assert_allclose(on_the_sphere(page, "at disc mean"), wanted, atol=2e-3)
    assert "The features of 6 of 6 images" in page.words


@pytest.mark.parametrize(
    ("features", "points"),
    [
        (torch.randn(40, 3), 40),
        (torch.randn(1000, 3), MOST_ON_SPHERE),
        (torch.randn(40, 3).index_fill(0, torch.arange(10), torch.nan).index_fill(0, torch.arange(10, 15), 0), 25),
        (torch.full((40, 3), torch.nan), 0),
        (torch.zeros(40, 3), 0),
        (torch.randn(40, 2), 0),
        (torch.randn(40, 4), 0),
    ],
)
def test_a_sphere_of_every_kind(features, points):
    drawn = sphere(features.float().numpy(), np.arange(len(features)) % 3, CLASSES)
    assert (len(drawn.points) if drawn else 0) == points
    assert drawn is None or ("; 15 without a direction" in drawn.note) == (points == 25)


def test_a_sphere_of_hostile_and_many_classes(tmp_path):
    for classes in (("<b>", "$x$", 'a" onload="x'), tuple(f"class {c}" for c in range(60))):
        _, page = written(tmp_path, **run(n=120, features=torch.randn(120, 3), classes=classes, history=[]))
        assert all(name in page.words for name in classes)
        assert not [name for name in page.attributes if name.startswith("on")]


def test_mistakes_are_the_surest_wrong_ones(tmp_path):
    arguments = run(n=200)
    confidence, predicted = arguments["scores"].max(1)
    wrong = [i for i in confidence.argsort(descending=True).tolist() if predicted[i] != arguments["labels"][i]]
    _, page = written(tmp_path, **arguments)
    assert re.findall(r"face_\d+\.jpg", page.words) == [f"face_{i}.jpg" for i in wrong[:MOST_MISTAKES]]
    assert f"out of {len(wrong)}" in page.words
    shown = pixels(page.images[-MOST_MISTAKES])
    np.testing.assert_array_equal(shown, arguments["images"][wrong[0]].permute(1, 2, 0).numpy())


def test_gray_images_without_names(tmp_path):
    _, page = written(tmp_path, **run(channels=1, names=None))
    assert re.search(r"image \d+", page.words)
    assert page.images


def test_a_full_test_set_of_large_images_stays_small(tmp_path):
    text, page = written(tmp_path, **run(n=3589, classes=tuple(f"class {c}" for c in range(8)), size=128))
    assert len(text.encode()) < 2_000_000
    assert f"t-SNE of the features of {figures.MOST_POINTS} of 3589 images" in page.words
    assert len(page.images) == MOST_MISTAKES + 2 * MOST_PAIRS * MOST_OF_A_PAIR


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.empty(0, dtype=torch.int64)}, "at least one image"),
        ({"features": torch.zeros(39, 8)}, "features: one entry per label is needed, 40, got 39"),
        ({"names": ("a",)}, "names: one entry per label"),
        ({"scores": torch.zeros(40, 2)}, r"scores: shape \(40, 3\)"),
        ({"images": torch.zeros(40, 3, 8, 8)}, "images: uint8"),
        ({"images": torch.zeros(40, 2, 8, 8, dtype=torch.uint8)}, "images: uint8"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        write_report(tmp_path / "report.html", **run(**changes))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write_report(tmp_path, **run())
    with pytest.raises(InputError, match="cannot write"):
        write_report(tmp_path / "missing" / "report.html", **run())
