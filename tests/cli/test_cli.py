"""The command line: what each command prints and leaves, and that bad input is one line and exit status 2."""

import json
import re
import subprocess
import sys

import pytest
import torch

from fer_fast.cli import COMMANDS, main
from fer_fast.registry import available
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.config import RECIPES

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
        (["predict", "--checkpoint", "f"], "PATH"),
        (["data", "chek", "x"], "check"),
        (["data", "check", "/nonexistent/x"], "/nonexistent/x"),
        (["list", "loses"], 'did you mean "losses"'),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


def test_splits_and_devices_that_are_not_there_are_named(trained, capsys):
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

    monkeypatch.setattr("fer_fast.written.os.fsync", full)
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
