"""The command line: what each command prints and leaves, and that bad input is one line and exit status 2."""

import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from fer_fast.cli import COMMANDS, main
from fer_fast.data import load_dataset
from fer_fast.data.prepare import Preparation
from fer_fast.registry import available
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.config import RECIPES
from fer_fast.train.evaluation import load_trained

TRAIN = (
    *("train", "--backbone", "mobilenetv3", "--epochs", "1", "--batch_size", "16", "--augment.size", "32"),
    *("--data.image_size", "32", "--data.options", "{faces: {samples: 32}}"),
)
METRICS = {
    *("accuracy", "average_accuracy", "macro_f1", "cohen_kappa", "krippendorff_alpha", "auc", "auc_pr"),
    *("per_class", "confusion_matrix", "classes", "split", "seconds"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    assert main([*TRAIN, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("tall [bold] x.png", "wide.jpg", "gray.png")]
    for path, shape in zip(paths, ((90, 40, 3), (40, 90, 3), (50, 50)), strict=True):
        assert cv2.imwrite(str(path), rng.integers(0, 255, shape, dtype=np.uint8))
    return [str(path) for path in paths]


def fails(arguments, capsys):
    """Run, and return the one line on standard error."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("fer-fast: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_run_leaves_what_it_should(trained):
    names = ("checkpoint.json", "checkpoint.safetensors", "config.yaml", "log.jsonl", "metrics.json")
    names += ("predictions.safetensors", "report.html", "resume.safetensors")
    assert sorted(path.name for path in trained.iterdir()) == [*names]
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    assert metrics.keys() >= METRICS
    assert metrics["split"] == "test"
    assert len(metrics["data"]) == 3


def test_every_run_without_out_has_its_own_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "nothing to resume" in fails([*TRAIN, "--resume"], capsys)
    for _ in range(2):
        assert main([*TRAIN]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["quick-1", "quick-2"]
    assert "quick-2 is finished" in fails(["train", "--resume"], capsys)


def test_eval_agrees_with_the_end_of_training(trained, tmp_path, capsys):
    out = tmp_path / "eval"
    assert main(["eval", "--checkpoint", str(trained / "checkpoint.safetensors"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (trained, out))
    assert {key: one[key] for key in METRICS - {"seconds"}} == {key: other[key] for key in METRICS - {"seconds"}}
    assert re.search(rf"^accuracy +{one['accuracy']:.4f}", printed, re.MULTILINE)
    assert (out / "report.html").stat().st_size > 1000
    assert "already holds" in fails(["eval", "--checkpoint", trained, "--out", out], capsys)
    assert main(["eval", "--checkpoint", str(trained), "--split", "val"]) == 0
    assert "val (32 images)" in capsys.readouterr().out


def test_predict_prints_a_row_for_each_photo(trained, photos, capsys):
    assert main(["predict", "--checkpoint", str(trained), *photos]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "class", "score", "face"]
    assert [line.split("  ")[0] for line in lines[1:]] == photos
    assert main(["predict", "--checkpoint", str(trained), "--json", *photos]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in rows] == photos
    for row in rows:
        assert sum(row["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert row["scores"][row["class"]] == row["score"] == max(row["scores"].values())
        assert row["face_found"] is False


def test_a_broken_photo_does_not_take_the_others_with_it(trained, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fer_fast.cli.predict.BATCH", 1)
    broken, gone = tmp_path / "broken.jpg", tmp_path / "gone.jpg"
    broken.write_bytes(b"no picture")
    assert main(["predict", "--checkpoint", str(trained), "--json", photos[0], str(broken), str(gone), photos[1]]) == 2
    out, errors = capsys.readouterr()
    assert [row["file"] for row in json.loads(out)] == photos[:2]
    assert [line.split(": ")[2] for line in errors.splitlines()] == [str(broken), str(gone)]
    assert main(["predict", "--checkpoint", str(trained), str(gone)]) == 2
    assert capsys.readouterr().out == ""


def test_predict_finds_a_face_and_prepares_it_like_the_training_images(trained, tmp_path, capsys):
    found = load_trained(trained)
    assert found.preparation() == Preparation(32, 1, "align")
    found.config.data.faces = "haar"
    assert found.preparation() == Preparation(32, 1, "haar")
    del found.state["images"]
    assert found.preparation() == Preparation(32, 3, "haar")

    face = load_dataset("faces", split="val", image_size=160, channels=3, samples=7).images[0]
    image = np.full((300, 420, 3), 90, np.uint8)
    image[70:230, 200:360] = face.permute(1, 2, 0).numpy()
    path = tmp_path / "größe.png"
    path.write_bytes(cv2.imencode(".png", image)[1])
    assert main(["predict", "--checkpoint", str(trained), "--json", str(path)]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["face_found"]
    left, top, width, height = row["box"]
    assert 180 < left < left + width < 380
    assert 50 < top < top + height < 250


def test_predictions_do_not_depend_on_the_batch(trained, photos, capsys, monkeypatch):
    answers = []
    for batch in (1, 2):
        monkeypatch.setattr("fer_fast.cli.predict.BATCH", batch)
        assert main(["predict", "--checkpoint", str(trained), "--json", *photos]) == 0
        answers.append([row["score"] for row in json.loads(capsys.readouterr().out)])
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


def test_list_names_everything(capsys):
    assert main(["list"]) == 0
    words = capsys.readouterr().out.split()
    assert {*RECIPES, *BACKBONES, *(row.name for row in available())} <= {*words}


def test_list_names_the_rows_of_the_papers_tables_where_they_are_asked_for(capsys):
    assert main(["list", "recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("weighted-cluster/5/model-3 "))
    assert row.split() == ["weighted-cluster/5/model-3", "3", "Weighted-softmax", "56.37", "(first", "of", "6)"]
    assert "Zhu et al. 2022, ecan: An Extra-Contrast Affinity Network for Facial Expression Recognition in the" in lines
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert sum("/" in line.split(" ")[0] for line in lines) == 235
    assert main(["list", "losses"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]} == {row.name for row in available()}


def test_help_and_version(capsys):
    assert main([]) == main(["--help"]) == main(["--version"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)
    assert "fer-fast 0" in printed
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert f"fer-fast {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], 'did you mean "train"'),
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "--epochs", "three"], "epochs"),
        (["train", "--epochs"], "--epochs"),
        (["train", "--loss", "varient"], 'did you mean "variant"'),
        (["train", "--backbone", "resnet81"], 'did you mean "resnet18"'),
        (["train", "--recipe", "quik"], 'did you mean "quick"'),
        (["train", "--dataset", "fer2031"], 'did you mean "fer2013"'),
        (["train", "--dataset", "fer2013"], "--root"),
        (["train", "--dataset", "fer2013", "--root", "/nonexistent/x"], "/nonexistent/x"),
        (["train", "--config", "/nonexistent/c.yaml"], "/nonexistent/c.yaml"),
        (["train", "--out", __file__], "is a file"),
        (["train", "surplus"], "surplus"),
        (["eval"], "--checkpoint"),
        (["eval", "--checkpoint", "/nonexistent/f"], "no checkpoint at"),
        (["eval", "--checkpoint", __file__], "corrupt or unreadable"),
        (["eval", "--chekpoint", "f"], "--checkpoint"),
        (["train", "--iterations", "abc"], "--iterations: expected a whole number. Got value: abc"),
        (["train", "--data.fold", "x"], "--data.fold: expected a whole number. Got value: x"),
        (
            ["train", "--data.faces", "eyes"],
            "--data.faces: expected one of ['whole', 'align', 'box', 'haar']",
        ),
        (["predict", "--checkpoint", "f"], "IMAGE"),
        (["data", "chek", "x"], "check"),
        (["data", "check", "/nonexistent/x"], "/nonexistent/x"),
        (["list", "loses"], 'did you mean "losses"'),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


def test_bad_photos_and_splits_are_named(trained, tmp_path, capsys):
    good = cv2.imencode(".jpg", np.zeros((60, 60, 3), np.uint8))[1].tobytes()
    files = {"broken.jpg": b"\xff\xd8\xff garbage", "empty.png": b"", "text.png": b"no picture", "cut.jpg": good[:-30]}
    (tmp_path / "folder.jpg").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in (*files, "folder.jpg", "none.jpg"):
        assert f"{tmp_path / name}: " in fails(["predict", "--checkpoint", trained, tmp_path / name], capsys)
    assert "nowhere" in fails(["eval", "--checkpoint", trained, "--split", "nowhere"], capsys)
    assert "abacus" in fails(["eval", "--checkpoint", trained, "--device", "abacus"], capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\nepochz: 2", "epochz"),
        ("epochs: [", "is not valid YAML"),
        ("- 1", "must hold a YAML mapping"),
        ("optimiser: {rate: fast}", "fast"),
        ("\x00", "is not valid YAML"),
        ("epochs: 2026-13-45", "--epochs: expected a whole number. Got value: 2026-13-45"),
        ("data: &x {options: {faces: *x}}", "is not valid YAML: Circular reference"),
        ("[" * 5000, "nested too deeply"),
        ("epochs: !!bool x", "is not valid YAML"),
        ("epochs: !!float ''", "is not valid YAML"),
        ("seeds: 3", "seeds is no key of a configuration; give it as an option, --seeds"),
        ("recipe: [1]", "recipe is [1]; it is one name"),
        ("recipe: null", "recipe is None; it is one name"),
        ("model: 3", "model is 3; it holds keys, such as model.stem"),
        ("model: null", "model is null; it holds keys"),
        ("epochs: null", "epochs is null; it needs a value"),
        ("data: {options: null}", "data.options is null; it needs a value"),
    ],
)
def test_bad_configuration_files(text, message, tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert message in fails(["train", "--config", path, "--out", tmp_path / "out"], capsys)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_with_a_missing_part(trained, tmp_path, capsys):
    from fer_fast.train.checkpoint import load_checkpoint, save_checkpoint

    tensors, state = load_checkpoint(trained)
    name = next(iter(tensors))
    save_checkpoint(tmp_path, {**tensors, name: torch.zeros(1)}, state)
    assert "does not fit the model" in fails(["eval", "--checkpoint", tmp_path], capsys)
    save_checkpoint(tmp_path, tensors, {key: value for key, value in state.items() if key != "classes"})
    assert "classes" in fails(["eval", "--checkpoint", tmp_path], capsys)


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fer_fast.train.checkpoint.os.fsync", full)
    assert "No space left on device" in fails([*TRAIN, "--out", tmp_path / "out"], capsys)


def test_the_installed_command_exits_with_2():
    done = subprocess.run(
        [sys.executable, "-c", "from fer_fast.cli import main; raise SystemExit(main())", "train", "--nope"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fer-fast: error: unknown option --nope\n"


def test_commands_that_do_not_train_do_not_import_the_slow_libraries():
    code = "import sys; from fer_fast.cli import main; main(['list']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert not loaded & {"timm", "torchvision", "sklearn", "matplotlib", "torchmetrics"}
