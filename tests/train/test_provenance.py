"""What made a run: its command, the code, the versions, the machine, and digests that change with what they are of."""

import dataclasses
import json
import shlex
import subprocess
from importlib.metadata import PackageNotFoundError

import cv2
import numpy
import pytest
import torch

from fer_fast.cli import main
from fer_fast.data.augment import fourteen_fold
from fer_fast.data.dataset import FaceDataset
from fer_fast.train import provenance
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.checkpoint import load_checkpoint, load_resume, save_checkpoint, save_resume
from fer_fast.train.config import HardwareConfig, file_layer, from_dict
from fer_fast.train.evaluation import load_trained
from fer_fast.train.hardware import Hardware
from fer_fast.train.run import train
from tiny_backbone import TINY

COMMAND = (
    *("train", "--backbone=tiny", "--epochs=1", "--batch_size=8", "--ema=0", "--hardware.device=cpu"),
    *("--augment.size=32", "--data.image_size", "32", "--data.options", "{faces: {samples: 24}}"),
)
NEW = ("command", "commit", "device", "resumed", "splits", "epochs")  # what checkpoints did not tell at first


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


# A run and its files


def test_a_run_tells_what_made_it(tmp_path):
    out = tmp_path / "the run"
    arguments = [*COMMAND, "--out", str(out)]
    assert main(arguments) == 0
    told = metrics(out)
    assert shlex.split(told["command"]) == ["fer-fast", *arguments]
    assert (told["recipe"], told["seed"], told["epochs"], told["resumed"]) == ("quick", 0, 1, [])
    assert told["device"] == provenance.describe_device(Hardware(HardwareConfig("cpu", "auto")))
    assert told["versions"] == provenance.versions()
    assert told["commit"] == provenance.commit()
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert told["val_accuracy"] == log[told["epoch"] - 1]["val_accuracy"]
    state = json.loads((out / "checkpoint.json").read_text(encoding="utf-8"))
    assert {key: state[key] for key in (*NEW, "versions")} == {key: told[key] for key in (*NEW, "versions")}
    assert told["weights"] == provenance.weights_digest(load_checkpoint(out)[0])


def test_a_resumed_run_keeps_its_first_command_and_adds_the_later_ones(tmp_path):
    out = tmp_path / "run"
    assert main([*COMMAND, "--out", str(out)]) == 0
    first = metrics(out)
    more = ["train", "--resume", "--out", str(out), "--epochs"]
    assert main([*more, "2"]) == main([*more, "3"]) == 0
    told = metrics(out)
    assert told["command"] == first["command"]
    assert [each["command"] for each in told["resumed"]] == [shlex.join(["fer-fast", *more, n]) for n in "23"]
    here = {key: first[key] for key in ("commit", "versions", "device")}
    sittings = [{key: value for key, value in each.items() if key != "date"} for each in told["resumed"]]
    assert [{**each, "command": None} for each in sittings] == [{"command": None, **here}] * 2
    assert first["date"] == told["date"] <= told["resumed"][0]["date"] <= told["resumed"][1]["date"]
    assert provenance.last_sitting(told) == told["resumed"][1]
    assert provenance.last_sitting(first) is first
    assert main(["verify", str(out), "--device=cpu"]) == 0


def test_a_run_of_an_earlier_version_is_read_and_goes_on(tmp_path, capsys):
    """Without what checkpoints did not tell, started from Python, and with the old name of the test crops."""
    out = tmp_path / "run"
    config = from_dict({"backbone": "tiny", "epochs": 1, "hardware": {"device": "cpu"}, "augment": {"size": 32}})
    config.data.options = {"faces": {"samples": 24}}
    train(config, out)
    assert metrics(out)["command"] is None
    for load, save in ((load_checkpoint, save_checkpoint), (load_resume, save_resume)):
        tensors, state = load(out)
        del state["config"]["augment"]["crops"]
        state["config"]["augment"]["five_crop"] = False
        save(out, tensors, {key: value for key, value in state.items() if key not in NEW[:-1]})
    assert load_trained(out, "cpu").config.augment.crops == 1
    assert main(["eval", "--checkpoint", str(out), "--device=cpu"]) == 0
    assert main(["train", "--resume", "--out", str(out), "--epochs", "2"]) == 0
    told = metrics(out)
    assert (told["command"], told["device"]) == (None, None)
    assert told["versions"] == provenance.versions()  # which were told from the start
    assert told["resumed"][0]["device"] == provenance.describe_device(Hardware(HardwareConfig("cpu")))
    tensors, state = load_resume(out)
    state["config"]["augment"] = {"five_crop": True, "size": 32}
    save_resume(out, tensors, state)
    assert main(["train", "--resume", "--out", str(out), "--epochs", "3"]) == 2
    assert "selected its epochs by five crops, this one does by single views" in capsys.readouterr().err


def test_what_auto_became_is_told_and_asked_for_again(tmp_path, capsys, monkeypatch):
    """In bfloat16 at first, resumed where there is none, verified there and where there is."""

    def here(computes_in_bfloat16):
        monkeypatch.setattr("fer_fast.train.hardware._computes_in_bfloat16", lambda device: computes_in_bfloat16)

    out = tmp_path / "run"
    here(True)
    assert main([*COMMAND, "--hardware.precision=auto", "--hardware.device=auto", "--out", str(out)]) == 0
    asked = file_layer(out / "config.yaml")["hardware"]
    assert (asked["precision"], asked["device"]) == ("auto", "auto")
    told = metrics(out)["device"]
    assert (told["precision"], told["type"]) == ("bfloat16", "cuda" if torch.cuda.is_available() else "cpu")
    here(False)
    assert main(["train", "--resume", "--out", str(out), "--epochs", "2"]) == 0
    assert file_layer(out / "config.yaml")["hardware"] == asked
    assert metrics(out)["device"] == told
    assert metrics(out)["resumed"][0]["device"] == {**told, "precision": "float32"}
    capsys.readouterr()
    assert main(["verify", str(out)]) == 0
    assert "rounding may differ" not in capsys.readouterr().out
    here(True)
    main(["verify", str(out)])
    note = '  device              precision: stated "float32", found "bfloat16"; rounding may differ'
    assert note in capsys.readouterr().out


# Its parts


def test_versions_are_those_of_what_is_installed(monkeypatch):
    found = provenance.versions()
    assert (found["torch"], found["numpy"]) == (torch.__version__, numpy.__version__)
    assert found["opencv"].startswith(cv2.__version__)
    real = provenance.version

    def without_triton(name):
        if name == "triton":
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(provenance, "version", without_triton)
    assert provenance.versions().keys() == found.keys() - {"triton"}


def test_a_commit_is_that_of_the_checkout_a_file_is_in(tmp_path):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(("git", "-C", tmp_path, *identity, *words), capture_output=True, text=True, check=True)
        return done.stdout.strip()

    file = tmp_path / "package" / "module.py"
    file.parent.mkdir()
    file.write_text("one")
    assert provenance.commit(file) is None  # no checkout
    git("init", "--quiet")
    assert provenance.commit(file) is None  # in somebody's checkout, but not of it
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    git("tag", "v1")
    head = git("rev-parse", "HEAD")
    assert provenance.commit(file) == head
    file.write_text("two")
    assert provenance.commit(file) == f"{head}-dirty"


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None


def dataset(**changes):
    images = torch.arange(4 * 64).reshape(4, 1, 8, 8).to(torch.uint8)
    given = {"images": images, "labels": torch.tensor([0, 1, 0, 1]), "classes": ("a", "b"), "split": "train"}
    return FaceDataset(**{**given, "names": ("1.png", "2.png", "3.png", "4.png"), **changes})


def test_membership_is_of_names_alone():
    plain = provenance.membership((dataset(),))
    assert plain.keys() == {"train"}
    for same in (
        dataset().subset([3, 1, 0, 2]),
        dataset(images=torch.zeros(4, 3, 16, 16, dtype=torch.uint8), labels=torch.tensor([1, 1, 1, 1])),
        fourteen_fold(dataset()),
    ):
        assert provenance.membership((same,)) == plain
    for other in (dataset().subset([0, 1, 2]), dataset(names=("1.png", "2.png", "3.png", "5.png"))):
        assert provenance.membership((other,)) != plain
    # A name that holds what stands between two names is one name.
    one, two = dataset(names=('1", "2', "3", "4", "5")), dataset(names=("1", "2", "3", "4")).subset([0, 1, 2])
    assert provenance.membership((one,)) != provenance.membership((two,))
    assert provenance.membership((dataset(names=None),)) == {}
    moved = provenance.membership((dataset().subset([0, 1, 2]), dataset().subset([3], split="test")))
    assert moved.keys() == {"train", "test"}
    assert moved["test"] not in (plain["train"], moved["train"])


def test_the_digest_of_data_covers_all_that_is_learnt_from():
    votes = torch.tensor([[0.5, 0.5]] * 4)
    variants = [
        dataset(),
        dataset().subset([1, 0, 2, 3]),
        dataset(labels=torch.tensor([0, 1, 1, 1])),
        dataset(classes=("b", "a")),
        dataset(votes=votes),
        dataset(votes=votes + torch.tensor([0.1, -0.1])),
        dataset(images=dataset().images ^ (torch.arange(256).reshape(4, 1, 8, 8) == 255)),
    ]
    assert len({each.digest() for each in variants}) == len(variants)
    assert dataclasses.replace(dataset(), names=None).digest() == dataset().digest()


def test_the_digest_of_weights_covers_every_bit():
    weights = {"a": torch.ones(2, 3, 4, 4), "b": torch.tensor(3), "c": torch.ones(3, dtype=torch.bfloat16)}
    digest = provenance.weights_digest(weights)
    strided = {"c": weights["c"], "b": weights["b"], "a": weights["a"].to(memory_format=torch.channels_last)}
    assert provenance.weights_digest(strided) == digest
    nearly = weights["a"].clone()
    nearly[1, 2, 3, 3] = torch.nextafter(nearly[1, 2, 3, 3], torch.tensor(2.0))
    others = (
        {**weights, "a": nearly},
        {**weights, "a": weights["a"].reshape(3, 2, 4, 4)},
        {**weights, "b": torch.tensor(3, dtype=torch.int32)},
        {"z": weights["a"], "b": weights["b"], "c": weights["c"]},
    )
    assert len({digest, *map(provenance.weights_digest, others)}) == 5
