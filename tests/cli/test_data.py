"""`fer-fast data check`: what it prints and leaves, and its exit status."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file

from fer_fast.cli import main
from fer_fast.data import DATASETS
from html_page import Page


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path):
    """A folder of somebody's own, without a problem."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 2)):
        for name in ("awake", "asleep"):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                rough = rng.integers(0, 256, (9, 9), dtype=np.uint8)
                cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(rough, (48, 48), interpolation=cv2.INTER_CUBIC))
    return tmp_path / "data"


def copy(root, source, target):
    (root / target).write_bytes((root / source).read_bytes())


def test_clean_data(root, capsys):
    assert main(["data", "check", str(root)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("folder: ")
    assert ["total", "6", "4"] in [line.split() for line in printed.splitlines()]
    assert printed.endswith("no problems found\n")


def test_problems_are_lines_and_the_exit_status(root, capsys):
    copy(root, "train/awake/0.png", "test/asleep/copy.png")
    (root / "train" / "awake" / "broken.png").write_bytes(b"no picture")
    assert main(["data", "check", str(root)]) == 1
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem: ")]
    assert [any(word in line for line in problems) for word in ("broken.png", "also in train", "1 group of")] == [
        True
    ] * 3


def test_the_published_counts_stand_beside(root, capsys, monkeypatch):
    sizes = {"train": {"asleep": 3, "awake": 4}}
    monkeypatch.setitem(DATASETS, "folder", replace(DATASETS["folder"], published=sizes))
    assert main(["data", "check", str(root)]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["class", "train", "published", "test"] in lines
    assert ["awake", "3", "4", "2"] in lines
    assert ["total", "6", "7", "4"] in lines


def test_json_is_one_object(root, capsys):
    copy(root, "train/awake/0.png", "train/awake/copy.png")
    assert main(["data", "check", str(root), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["dataset"], printed["classes"]) == ("folder", ["asleep", "awake"])
    assert printed["counts"] == {"train": {"asleep": 3, "awake": 4}, "test": {"asleep": 2, "awake": 2}}
    assert [printed[key] for key in ("subjects", "sequences", "unlabelled")] == [None] * 3
    assert len(printed["problems"]) == 1


def test_a_page_is_written(root, tmp_path, capsys):
    out = tmp_path / "report.html"
    assert main(["data", "check", str(root), "--json", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["problems"] == []
    assert str(out) in captured.err
    assert len(Page(out.read_text(encoding="utf-8")).images) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{root}", "--dataset", "fer2031"], 'did you mean "fer2013"'),
        (["{root}", "--dataset", "rafdb"], "holds no rafdb"),
        (["{root}/train/awake"], "none of the data sets"),
        (["{root}/missing"], "does not exist"),
        (["{root}", "--out", "{root}/missing/report.html"], "cannot write"),
    ],
)
def test_bad_input_is_one_line(arguments, message, root, capsys):
    assert main(["data", "check", *(argument.format(root=root) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_hostile_name_cannot_steer_the_terminal(root, capsys):
    for name in ("\x1b[31mred\n.png", "[bold]x.png"):
        (root / "train" / "awake" / name).write_bytes(b"no picture")
    (root / "train" / "awake").joinpath(b"\xff.png".decode(errors="surrogateescape")).write_bytes(b"no picture")
    assert main(["data", "check", str(root)]) == 1
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert r"\x1b[31mred\n.png" in printed
    assert "[bold]x.png" in printed
    assert main(["data", "check", str(root), "--json", "--out", str(root.parent / "r.html")]) == 1


def test_a_terminal_wraps_between_words(root, tmp_path):
    copy(root, "train/awake/0.png", "test/asleep/copy.png")
    code = f"from fer_fast.cli import main; main(['data', 'check', {str(root)!r}])"
    ours, theirs = pty.openpty()
    environment = {"TERM": "dumb", "FER_FAST_CACHE": str(tmp_path)}  # of 80 columns
    subprocess.run([sys.executable, "-c", code], stdout=theirs, stderr=subprocess.DEVNULL, env=environment, check=True)
    lines = os.read(ours, 1 << 16).decode().splitlines()
    problem = next(number for number, line in enumerate(lines) if line.startswith("problem: "))
    assert 60 < len(lines[problem]) <= 80
    assert "also in train, 1 labelled otherwise there, for instance test/asleep/copy.png" in " ".join(
        line.strip() for line in lines[problem:]
    )


def test_what_is_kept_is_listed_and_removed(root, capsys):
    assert main(["data", "check", str(root), "--dataset", "folder"]) in (0, 1)
    capsys.readouterr()
    foreign = Path(os.environ["FER_FAST_CACHE"]) / "mine" / "index.safetensors"
    foreign.parent.mkdir()
    save_file({"x": np.zeros(1)}, foreign, metadata={"dataset": "folder", "part": "train"})
    assert main(["data", "cache"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("folder", "total"))]
    assert [line[:2] for line in lines[:-1]] == [["folder", "test"], ["folder", "train"]]
    assert float(lines[-1][1]) == pytest.approx((4 + 6) * 224 * 224 * 3 / 1e6, rel=0.05)
    assert main(["data", "cache", "fer2013", "--clear"]) == 0
    assert "removed: 0" in capsys.readouterr().out
    assert main(["data", "cache", "--clear"]) == 0
    assert "removed: 2" in capsys.readouterr().out
    assert main(["data", "cache"]) == 0
    assert "folder  " not in capsys.readouterr().out
    assert foreign.exists()
