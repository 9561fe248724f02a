"""``fer-fast predict``: what it prints and leaves of pictures and folders, whatever they are called or hold."""

import csv
import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from fer_fast.cli import main
from fer_fast.data.prepare import Preparation
from fer_fast.serve import model as model_module
from fer_fast.train.evaluation import load_trained
from one_line import fails
from untrained import CLASSES, photograph, untrained


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("predict") / "run")


@pytest.fixture
def photos(tmp_path):
    """Noise, in which there is no face."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("tall [bold] x.png", "wide.jpg", "gray.png")]
    for path, shape in zip(paths, ((90, 40, 3), (40, 90, 3), (50, 50)), strict=True):
        write(path, rng.integers(0, 255, shape, dtype=np.uint8))
    return [str(path) for path in paths]


@pytest.fixture
def tree(tmp_path):
    """A folder of pictures, with what lies in folders besides."""
    root = tmp_path / "photos"
    write(root / "two.png", photograph(2))
    write(root / "inner" / "deep" / "one.JPG", photograph())
    write(root / ".hidden" / "one.png", photograph())
    write(root / "inner" / ".a.png", photograph())
    (root / "notes.txt").write_text("x")
    (root / "inner" / "back").symlink_to(root)
    return root


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), image[..., ::-1] if image.ndim == 3 else image)[1])


def rows_of(arguments, capsys, status=0):
    """The lines of JSON that predict prints."""
    assert main(["predict", "--json", *map(str, arguments)]) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def listed(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_picture(checkpoint, photos, capsys):
    assert main(["predict", "--checkpoint", str(checkpoint), *photos]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "class", "score", "face", "cosine"]
    assert [line.split("  ")[0] for line in lines[1:]] == photos
    rows = rows_of(["--checkpoint", checkpoint, *photos], capsys)
    assert [row["file"] for row in rows] == photos
    assert [row["size"] for row in rows] == [[40, 90], [90, 40], [50, 50]]
    for row in rows:
        (face,) = row["faces"]
        assert tuple(face["scores"]) == CLASSES
        assert sum(face["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert face["scores"][face["class"]] == face["score"] == max(face["scores"].values())
        assert -1 <= face["cosine"] <= 1
        assert face["found"] is False
        assert face["box"][2] == face["box"][3] == min(row["size"])


def test_a_classifier_without_directions_gives_no_cosines(tmp_path, photos, capsys):
    plain = untrained(tmp_path / "run", loss="variant")
    assert [row["faces"][0]["cosine"] for row in rows_of(["--checkpoint", plain, *photos], capsys)] == [None] * 3
    assert main(["predict", "--checkpoint", str(plain), "--out", str(tmp_path / "out"), *photos]) == 0
    assert "cosine" not in capsys.readouterr().out
    assert {row["cosine"] for row in listed(tmp_path / "out" / "predictions.csv")} == {""}
    assert "--threshold is of cosines" in fails(["predict", "--checkpoint", plain, "--threshold", 0.5, *photos], capsys)


def test_every_face_the_largest_or_the_whole_picture(checkpoint, tmp_path, capsys):
    path = tmp_path / "größe.png"
    write(path, photograph(3))
    by = {which: rows_of(["--checkpoint", checkpoint, path, "--faces", which], capsys)[0]["faces"] for which in
          ("all", "largest", "whole")}  # fmt: skip
    assert [len(faces) for faces in by.values()] == [3, 1, 1]
    lefts = sorted(face["box"][0] for face in by["all"])
    for number, left in enumerate(lefts):  # as they were drawn
        assert 100 + 260 * number - 20 < left < 100 + 260 * number + 100
    assert by["largest"][0]["box"] in [face["box"] for face in by["all"]]
    assert by["whole"][0]["box"] == [0, 0, 880, 360]
    assert main(["predict", "--checkpoint", str(checkpoint), str(path), "--faces", "whole"]) == 0
    assert " whole " in capsys.readouterr().out


def test_pictures_are_prepared_like_the_training_images(checkpoint):
    found = load_trained(checkpoint)
    assert found.preparation() == Preparation(48, 1, "align")
    found.config.data.faces = "haar"
    assert found.preparation() == Preparation(48, 1, "haar")
    del found.state["images"]
    assert found.preparation() == Preparation(48, 3, "haar")


def test_a_broken_picture_is_named_and_the_rest_done(checkpoint, photos, tmp_path, capsys):
    broken, gone = tmp_path / "broken.jpg", tmp_path / "gone.jpg"
    broken.write_bytes(b"no picture")
    given = ["--checkpoint", checkpoint, photos[0], broken, gone, photos[1]]
    assert main(["predict", "--json", *map(str, given)]) == 2
    out, errors = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["file"] for row in rows] == [photos[0], str(broken), str(gone), photos[1]]
    assert ["faces" in row for row in rows] == [True, False, False, True]
    assert all(row["error"].startswith(row["file"]) for row in rows[1:3])
    assert [line.split(": ")[2] for line in errors.splitlines()] == [str(broken), str(gone)]
    assert main(["predict", *map(str, given[:2]), str(gone)]) == 2
    assert capsys.readouterr().out == ""


def test_what_is_wrong_with_a_picture_is_said(checkpoint, tmp_path, capsys):
    good = cv2.imencode(".jpg", np.zeros((60, 60, 3), np.uint8))[1].tobytes()
    files = {"broken.jpg": b"\xff\xd8\xff garbage", "empty.png": b"", "text.png": b"no picture", "cut.jpg": good[:-30]}
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe", "pipe.mp4"):
        os.mkfifo(tmp_path / name)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in (*files, "folder.jpg", "pipe", "pipe.mp4", "none.jpg", "none.mp4", "nu\0ll.jpg"):
        assert f"{name.replace(chr(0), '')[:2]}" in fails(
            ["predict", "--checkpoint", checkpoint, tmp_path / name], capsys
        )


def test_numbers_do_not_depend_on_the_batch(checkpoint, photos, capsys, monkeypatch):
    answers = []
    for batch in (1, 2):
        monkeypatch.setattr(model_module, "BATCH", batch)
        rows = rows_of(["--checkpoint", checkpoint, *photos], capsys)
        answers.append([row["faces"][0]["score"] for row in rows])
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


def test_folders_are_read_to_the_bottom_and_each_file_once(checkpoint, tree, capsys):
    given = [tree, tree / "two.png", tree / "inner" / "back" / "two.png", tree / "inner"]
    assert main(["predict", "--json", "--checkpoint", str(checkpoint), *map(str, given)]) == 0
    out, errors = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["file"] for row in rows] == [str(tree / "two.png"), str(tree / "inner" / "deep" / "one.JPG")]
    assert [len(row["faces"]) for row in rows] == [2, 1]
    (line,) = errors.splitlines()
    assert "files that are no pictures (.txt): 1" in line
    assert "hidden files and files of the operating system: 3" in line


def test_a_folder_without_pictures_beside_one_with_some(checkpoint, tree, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    assert main(["predict", "--json", "--checkpoint", str(checkpoint), str(tmp_path / "none"), str(tree)]) == 2
    out, errors = capsys.readouterr()
    assert json.loads(out.splitlines()[0]) == {
        "file": str(tmp_path / "none"),
        "error": f"{tmp_path / 'none'}: no image file in this folder",
    }
    assert len(out.splitlines()) == 3
    assert errors.count("error") == 1


@pytest.mark.parametrize(
    "name", [b"two\nlines.png", b'a "quoted", one.png', b"not \xff utf-8.png", "日本 ü.png".encode()]
)
def test_names_of_files_do_not_break_rows(checkpoint, tmp_path, capsys, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    image = tmp_path / "image.png"
    write(image, photograph())
    image.rename(os.fsdecode(path))
    given = ["--checkpoint", str(checkpoint), os.fsdecode(path)]
    (row,) = rows_of(given, capsys)
    assert row["file"] == os.fsdecode(path)
    assert main(["predict", *given, "--out", str(tmp_path / "out")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    (listing,) = listed(tmp_path / "out" / "predictions.csv")
    assert listing["class"] == row["faces"][0]["class"]
    assert len((tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 2
    drawn = cv2.imdecode(np.fromfile(os.path.join(os.fsencode(tmp_path), b"out", name), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (360, 360, 3)


def test_annotated_pictures_lie_as_their_originals(checkpoint, tree, tmp_path, capsys):
    out = tmp_path / "out"
    write(tree / "inner" / "a.bmp", photograph())
    rows = rows_of(["--checkpoint", checkpoint, tree, "--out", out], capsys)
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == ["inner/a.bmp.png", "inner/deep/one.JPG", "predictions.csv", "two.png"]
    before, after = (cv2.imread(str(folder / "two.png")) for folder in (tree, out))
    assert before.shape == after.shape
    assert (before != after).any()
    table = listed(out / "predictions.csv")
    told = [(row["file"], face) for row in rows for face in row["faces"]]
    assert len(table) == len(told) == 4
    for line, (file, face) in zip(table, told, strict=True):
        assert line["file"] == file
        assert [int(line[side]) for side in ("left", "top", "width", "height")] == face["box"]
        assert (line["found"], line["class"]) == (str(face["found"]), face["class"])
        for name, score in face["scores"].items():
            assert float(line[f"score_{name}"]) == pytest.approx(score, abs=1e-6)


def test_many_faces_are_counted_where_they_are_listed_elsewhere(checkpoint, tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fer_fast.cli.predict._LONG", 1)
    given = ["predict", "--checkpoint", str(checkpoint), str(tree)]
    assert main(given) == 0
    faces = len(capsys.readouterr().out.splitlines()) - 1
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    head, *rows, total, written = capsys.readouterr().out.splitlines()
    assert head.split() == ["class", "faces"]
    assert sum(int(row.split()[-1]) for row in rows) == int(total.split()[-1]) == faces > 1
    assert written == f"a row a face: {tmp_path / 'out' / 'predictions.csv'}"


def test_nothing_is_overwritten(checkpoint, tree, tmp_path, capsys):
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    given = ["predict", "--checkpoint", checkpoint, tree]
    assert "is there already" in fails([*given, "--out", tree], capsys)
    assert main([*map(str, given), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    shutil.rmtree(tmp_path / "out" / "inner")
    assert "already holds predictions.csv" in fails([*given, "--out", tmp_path / "out"], capsys)
    assert "is no folder" in fails([*given, "--out", tree / "notes.txt"], capsys)
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


def test_pictures_of_one_name_stay_apart(checkpoint, tmp_path):
    for folder in ("one", "two"):
        write(tmp_path / folder / "a.gif.png", photograph())
        write(tmp_path / folder / "a.bmp", photograph())
        (tmp_path / folder / "a.bmp").rename(tmp_path / folder / "a.gif")
    out = tmp_path / "out"
    assert main(["predict", "--checkpoint", str(checkpoint), *(str(tmp_path / n) for n in ("one", "two")),
                 "--out", str(out)]) == 0  # fmt: skip
    drawn = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    assert drawn == [f"{folder}/a.gif.png{more}" for folder in ("one", "two") for more in ("", ".png")]


def test_what_is_below_the_threshold_is_unknown(checkpoint, photos, capsys):
    given = ["--checkpoint", checkpoint, *photos, "--threshold"]
    assert {row["faces"][0]["class"] for row in rows_of([*given, 1], capsys)} == {"unknown"}
    assert "unknown" not in {row["faces"][0]["class"] for row in rows_of([*given, -1], capsys)}


def test_a_bar_is_drawn_where_somebody_watches_and_lines_stay_apart(checkpoint, photos, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, to rich
    assert main(["predict", "--json", "--checkpoint", str(checkpoint), *photos]) == 0
    out, errors = capsys.readouterr()
    assert [json.loads(line)["file"] for line in out.splitlines()] == photos
    assert "predicting" in errors
    monkeypatch.delenv("FORCE_COLOR")
    assert main(["predict", "--json", "--checkpoint", str(checkpoint), *photos]) == 0
    assert capsys.readouterr().err == ""


def test_lines_come_as_batches_finish_and_a_reader_may_go(checkpoint, tmp_path):
    write(tmp_path / "a.png", photograph())
    command = (
        "from fer_fast.serve import model; model.BATCH = 1; from fer_fast.cli import main; raise SystemExit(main())"
    )
    for number in range(300):
        os.link(tmp_path / "a.png", tmp_path / f"{number}.png")
    names = [str(tmp_path / f"{number}.png") for number in range(300)]
    started = subprocess.Popen(
        [sys.executable, "-c", command, "predict", "--json", "--faces", "whole", "--checkpoint", checkpoint, *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert json.loads(started.stdout.readline())["file"] == names[0]
    started.stdout.close()
    assert started.wait() == 1
    assert started.stderr.read() == ""
    started.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "0"], "--rate is 0; it is a number from 0.001 to 1000"),
        (["--rate", "nan"], "--rate is nan"),
        (["--every", "-1"], "--every is -1"),
        (["--rate", "5", "--every", "1"], "not allowed with"),
        (["--threshold", "2"], "--threshold is 2; a cosine lies between -1 and 1"),
        (["--threshold", "nan"], "--threshold is nan"),
        (["--faces", "larges"], 'did you mean "largest"'),
        (["--device", "abacus"], "abacus"),
        (["--checkpoint", "/nonexistent/f"], "no checkpoint at"),
        (["--jsn"], "did you mean --json"),
    ],
)
def test_bad_options_are_one_line(checkpoint, photos, tmp_path, capsys, arguments, message):
    given = ["predict", "--checkpoint", checkpoint, photos[0], "--out", tmp_path / "out", *arguments]
    assert message in fails(given, capsys)
    assert not (tmp_path / "out").exists()
