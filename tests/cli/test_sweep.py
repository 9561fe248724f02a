"""Many runs from the command line: seeds, folds and grids, what is refused, and what the terminal says."""

import json
import re
import shlex

import numpy as np
import pytest
import yaml

from fer_fast.cli import main
from fer_fast.cli.parser import underscored
from fer_fast.cli.study import refuse_idle_axes
from fer_fast.errors import InputError
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.config import RunConfig
from fer_fast.train.folder import claimed
from fer_fast.train.run import train
from fer_fast.train.study import Study
from one_line import fails
from stub_datasets import listed, photograph, put, row, table_of
from tiny_backbone import TINY, quicken

SMALL = (
    *("--backbone", "tiny", "--epochs", "1", "--batch-size", "16", "--augment.size", "32"),
    *("--data.image-size", "32", "--hardware.precision", "float32"),
)
FACES = (*SMALL, "--data.options", "{faces: {samples: 32}}")
GRID = ("--loss", "lmcl", "--grid", "objective.options.lmcl.s=[20, 30]")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quicken(monkeypatch)


@pytest.fixture
def subjects(tmp_path):
    """The flags of a dataset of two pictures of each of some people, in the table while the block lasts."""

    def flags(people):
        paths = [put(tmp_path / "data" / f"{i}.png", photograph(i)) for i in range(2 * people)]
        who = tuple(f"S{i // 2:02d}" for i in range(2 * people))

        def read(root):
            return listed(paths, labels=[i % 2 for i in range(2 * people)], part="all", subjects=who)

        return table_of(row(read)), (*SMALL, "--dataset", "stub", "--root", str(tmp_path / "data"))

    return flags


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "out"
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        grids = (*GRID, "--grid", "optimiser.rate=[1e-3]")
        assert main(["sweep", *FACES, *grids, "--seeds", "2", "--seed", "5", "--out", str(out)]) == 0
    return out


def test_a_sweep_trains_every_combination_and_ranks_by_validation(swept, capsys):
    folders = [f"s-{s}_rate-0.001/seed-{seed}" for s in (20, 30) for seed in (5, 6)]
    metrics = json.loads((swept / "metrics.json").read_text())
    assert [run["folder"] for run in metrics["runs"]] == folders
    for run in metrics["runs"]:
        written = yaml.safe_load((swept / run["folder"] / "config.yaml").read_text())
        assert written["objective"]["options"]["lmcl"] == {"s": run["point"]["objective.options.lmcl.s"]}
        assert (written["optimiser"]["rate"], written["seed"]) == (run["point"]["optimiser.rate"], run["seed"])
        own = json.loads((swept / run["folder"] / "metrics.json").read_text())
        assert run["accuracy"] == own["accuracy"]
    means = [point["mean"]["val_accuracy"] for point in metrics["points"]]
    assert means == sorted(means, reverse=True)
    assert metrics["chosen"] == metrics["points"][0]["point"]
    runs = [run for run in metrics["runs"] if run["point"] == metrics["chosen"]]
    assert metrics["accuracy"] == pytest.approx(np.mean([run["accuracy"] for run in runs]))
    assert (swept / "report.html").stat().st_size > 100
    assert "is finished (4 runs)" in fails(["train", "--resume", "--out", swept], capsys)


def test_a_sweep_prints_its_points_and_goes_on_alone(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["sweep", *FACES, *GRID, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    lines = printed.splitlines()
    assert "run 2 of 2: s-30" in lines
    first = next(place for place, line in enumerate(lines) if "validation" in line) + 1
    for line, point in zip(lines[first : first + 2], metrics["points"], strict=True):
        values = [point["mean"][key] for key in ("val_accuracy", "accuracy", "average_accuracy", "macro_f1")]
        assert line.split() == ["s", str(point["point"]["objective.options.lmcl.s"]), *(f"{x:.4f}" for x in values)]
    assert f"s {metrics['chosen']['objective.options.lmcl.s']}: chosen by validation accuracy" in printed
    assert max(map(len, lines[first:-1])) <= 80  # the last is a path
    (out / "metrics.json").unlink()
    (out / "s-30" / "metrics.json").unlink()
    assert main(["sweep", "--resume", "--out", str(out)]) == 0
    assert "run 1 of 2: s-20 is finished" in capsys.readouterr().out
    again = json.loads((out / "metrics.json").read_text())
    assert again["points"] == metrics["points"]


def test_a_sweep_of_which_a_point_fails_ends_over_the_others(tmp_path, capsys, monkeypatch):
    def fail(config, folder, **keywords):
        if config.seed == 1 and config.objective.options["lmcl"]["s"] == 30:
            raise InputError("the loss became infinite")
        return train(config, folder, **keywords)

    monkeypatch.setattr("fer_fast.train.study.train", fail)
    out = tmp_path / "out"
    assert main(["sweep", *FACES, *GRID, "--seeds", "2", "--out", str(out)]) == 2
    printed, errors = capsys.readouterr()
    said = "1 of 4 runs failed: s-30/seed-1 (the loss became infinite); the others are finished"
    assert errors.splitlines()[-1] == f"fer-fast: error: {said}, --resume --out {out} tries again"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["failed"] == [{"folder": "s-30/seed-1", "error": "the loss became infinite"}]
    assert [point["runs"] for point in metrics["points"]] == [["s-20/seed-0", "s-20/seed-1"]]
    assert [run["folder"] for run in metrics["runs"]] == ["s-20/seed-0", "s-20/seed-1", "s-30/seed-0"]
    own = [json.loads((out / "s-20" / f"seed-{i}" / "metrics.json").read_text()) for i in range(2)]
    assert metrics["accuracy"] == pytest.approx(np.mean([run["accuracy"] for run in own]))
    assert "failed: s-30/seed-1: the loss became infinite\n" in printed
    assert "s-30/seed-1: the loss became infinite" in (out / "report.html").read_text()
    assert main(["verify", str(out), "--device", "cpu"]) == 0
    verified = capsys.readouterr().out.splitlines()
    assert re.fullmatch("note +s-30/seed-1 +failed in the study: the loss became infinite", verified[0])
    assert [line.split()[0] for line in verified[1:-1]] == ["holds"] * 4
    monkeypatch.undo()
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    assert main(["train", "--resume", "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert (len(metrics["points"]), len(metrics["runs"]), "failed" in metrics) == (2, 4, False)


def test_seeds_without_out_have_a_folder_and_go_on_from_the_latest(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *FACES, "--seeds", "2", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / "runs" / "quick-1" / "metrics.json").read_text())
    assert [run["folder"] for run in metrics["runs"]] == ["seed-3", "seed-4"]
    for run in metrics["runs"]:
        assert re.search(
            rf"^{run['folder']} .*{run['accuracy']:.4f} .*{run['macro_f1']:.4f} +1\b", printed, re.MULTILINE
        )
    deviation = re.search(rf"{metrics['accuracy']:.4f} +± (0\.\d+)", printed)[1]
    assert float(deviation) == pytest.approx(metrics["deviation"]["accuracy"], abs=5e-4)
    assert "the study in runs/quick-1 is finished" in fails(["train", "--resume"], capsys)
    assert "seed was [3, 4] and is now [3]" in fails(["train", "--resume", "--seeds", "1"], capsys)
    assert "data.fold was None and is now [1, 2, 3]" in fails(["train", "--resume", "--folds", "3"], capsys)
    refused = "epochs was 1 and is now 2; a study cannot be given more epochs\n"
    assert fails(["train", "--resume", "--epochs", "2"], capsys).endswith(refused)
    line = fails(["train", "--resume", "--out", "runs/quick-1/seed-3", "--epochs", "2"], capsys)
    assert "seed-3 is a run of the study in " in line
    assert main(["train", "--resume", "--seeds", "3"]) == 0
    assert "run 3 of 3: seed-5\n" in capsys.readouterr().out
    run = "runs/quick-1/seed-3"
    assert "no study in runs/quick-1/seed-3 but a run" in fails(
        ["train", "--resume", "--out", run, "--seeds", 2], capsys
    )
    assert "already holds a run" in fails(["train", *FACES, "--seeds", "2", "--out", run], capsys)
    assert "already holds a study" in fails(["train", *FACES, "--out", "runs/quick-1"], capsys)


def test_folds_are_runs_and_with_seeds_both(subjects, tmp_path, capsys):
    table, flags = subjects(12)
    with table:
        assert main(["train", *flags, "--folds", "3", "--seeds", "2", "--out", str(tmp_path / "out")]) == 0
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert [run["folder"] for run in metrics["runs"]] == [
            f"seed-{seed}/fold-{fold}" for seed in range(2) for fold in (1, 2, 3)
        ]
        for run in metrics["runs"]:
            written = yaml.safe_load((tmp_path / "out" / run["folder"] / "config.yaml").read_text())
            assert (written["data"]["fold"], written["data"]["folds"]) == (run["fold"], 3)
        values = np.array([run["accuracy"] for run in metrics["runs"]]).reshape(2, 3)
        assert metrics["accuracy"] == pytest.approx(values.mean())
        assert metrics["deviation"]["accuracy"] == pytest.approx(values.mean(1).std(ddof=1))
        resumed = ["train", "--resume", "--out", tmp_path / "out"]
        assert "is finished (6 runs)" in fails([*resumed, "--seeds", 2], capsys)
        assert "data.fold was [1, 2, 3] and is now [1, 2, 3, 4]" in fails([*resumed, "--folds", 4], capsys)
        assert "data.folds was 3 and is now 7" in fails([*resumed, "--data.folds", 7], capsys)


def test_too_few_people_for_the_folds_are_found_before_the_first(subjects, tmp_path, capsys):
    table, flags = subjects(5)
    with table:
        line = fails(["train", *flags, "--folds", "10", "--out", tmp_path / "out"], capsys)
    assert "stub: " in line
    assert "folds need 10 subjects, here are 5" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", *FACES, "--seeds", "0"], "--seeds is 0; allowed: 1 to 1000"),
        (["train", *FACES, "--seeds", "-1"], "--seeds is -1"),
        (["train", *FACES, "--seeds", "99999999999"], "allowed: 1 to 1000"),
        (["train", *FACES, "--seeds", "two"], "--seeds: invalid int value: 'two'"),
        (["train", *FACES, "--folds", "0"], "--folds is 0; allowed: 1 to 1000"),
        (["train", *FACES, "--folds", "10"], "data.fold does nothing in this run; it acts on a dataset that is read"),
        (["train", *FACES, "--folds", "5", "--data.folds", "7"], "--folds is 5 and --data.folds 7"),
        (["train", *FACES, "--folds", "5", "--data.fold", "2"], "--data.fold does nothing beside"),
        (
            ["train", *FACES, "--seeds", "2", "--optimiser.betas", "[0, 0]", "--optimiser.name", "sgd"],
            "betas does nothing",
        ),
        (["train", *FACES, "--grid", "epochs=[1, 2]"], "unknown option --grid"),
        (["sweep", *FACES], "a sweep needs --grid"),
        (["sweep", *FACES, "--grid", "epochs"], "a key and a list of its values are needed"),
        (["sweep", *FACES, "--grid", "epochs=3"], "a key and a list of its values are needed"),
        (["sweep", *FACES, "--grid", "epochs=[1"], "a key and a list of its values are needed"),
        (["sweep", *FACES, "--grid", "optimiser.rate=[2026-13-45]"], "expected a float. Got value: 2026-13-45"),
        (["sweep", *FACES, "--grid", "seed=[0x_]"], "seed-0x-: --seed: "),
        (["sweep", *FACES, "--grid", "epochs=&x [*x]"], "a key and a list of its values are needed"),
        (["sweep", *FACES, "--grid", f"epochs={'[' * 5000}"], "a key and a list of its values are needed"),
        (["sweep", *FACES, "--grid", "epochs=[]"], "axis epochs has no values"),
        (["sweep", *FACES, "--grid", "epohs=[1]"], 'did you mean "epochs"'),
        (["sweep", *FACES, "--grid", "seed=[abc]"], "seed-abc: --seed: expected a whole number. Got value: abc"),
        (["sweep", *FACES, "--grid", "seed=[1, 2]", "--seeds", "2"], "the values of seed are given twice"),
        (["sweep", *FACES, "--grid", "seed=[1]", "--grid", "seed=[2]"], "the values of seed are given twice"),
        (["sweep", *FACES, "--grid", "accumulate=[2, 2]"], "would be the same run"),
        (["sweep", *FACES, "--grid", "epochs=[1, 2]", "--epochs", "3"], "--epochs does nothing beside"),
        (["sweep", *FACES, "--grid", "schedule.factor=[0.1, 0.5]"], "it acts with schedule.name step"),
        (["sweep", *FACES, "--grid", "objective.options.lmcl.s=[1, 2]"], "objective.options.lmcl does nothing in this"),
        (["sweep", *FACES, *GRID, "--grid", "objective.options.lmcl.z=[1]"], "'z' is not one of"),
        (["sweep", *FACES, *GRID, "--grid", "objective.options.lmcl.m=[big]"], "m-big: objective.options.lmcl: "),
        (["sweep", *FACES, *GRID, "--grid", "objective.options.lmcl.m=[!!set {a}]"], "holds what is no number"),
        (["sweep", *FACES, *GRID, "--objective.options", "{lmcl: {s: 5}}"], "--objective.options.lmcl.s does nothing"),
        (["sweep", "--resume", "--out", "none"], "nothing to resume: there is no study in none"),
    ],
)
def test_bad_protocols_are_one_line_before_any_work(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*arguments] if "--resume" in arguments else [*arguments, "--out", "out"]
    assert message in fails(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


def test_options_that_act_in_one_of_the_runs_are_no_mistake(tmp_path):
    options = "{lmcl: {s: 20}, arcface: {s: 30}}"
    grid = ("--grid", "loss=[lmcl, arcface]", "--objective.options", options)
    assert main(["sweep", *FACES, *grid, "--out", str(tmp_path / "out")]) == 0


def test_values_that_come_to_a_sweep_must_act_and_those_it_was_begun_with_stay(tmp_path, capsys):
    factors, out = ("--grid", "schedule.factor=[0.1, 0.5]"), ("--out", str(tmp_path / "out"))
    assert main(["sweep", *FACES, "--grid", "schedule.name=[step]", *factors, *out]) == 0
    began = (tmp_path / "out" / "study.json").read_text()
    line = fails(["sweep", "--resume", *out, "--grid", "schedule.name=[step, cosine]"], capsys)
    assert "schedule.factor does nothing in this run; it acts with schedule.name step" in line
    assert (tmp_path / "out" / "study.json").read_text() == began
    assert main(["sweep", "--resume", *out, "--grid", "schedule.factor=[0.1, 0.5, 0.2]"]) == 0
    begun = Study(RunConfig(), {"schedule.decay": (0.1, 0.5)})  # from Python, which refuses no such axis
    refuse_idle_axes(begun, begun)
    with pytest.raises(InputError, match=r"schedule\.decay does nothing"):
        refuse_idle_axes(Study(RunConfig(), {"schedule.decay": (0.1, 0.5, 0.2)}), begun)


def test_two_processes_do_not_share_a_study(tmp_path, capsys):
    with claimed(tmp_path / "out"):
        line = fails(["train", *FACES, "--seeds", "2", "--out", tmp_path / "out"], capsys)
    assert "another run is writing in" in line


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fer_fast.train.study.train", stop)
    out = tmp_path / "out"
    assert main(["train", *FACES, "--seeds", "2", "--out", str(out)]) == 130
    line = f"fer-fast: interrupted; continue with: fer-fast train --resume --out {out}\n"
    assert capsys.readouterr().err == line


def test_a_run_interrupted_in_its_first_epoch_begins_again(tmp_path, capsys, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "it's new"
    assert main(["train", *FACES, "--out", str(whole)]) == 0
    monkeypatch.setattr("fer_fast.train.loop.Trainer.fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["train", *FACES, "--out", str(out)]) == 130
    command = capsys.readouterr().err.partition("continue with: fer-fast ")[2]
    monkeypatch.undo()
    quicken(monkeypatch)
    assert "epochs was 1 and is now 2" in fails([*shlex.split(command), "--epochs", "2"], capsys)
    assert main(shlex.split(command)) == 0
    assert f"{out} was interrupted in its first epoch; it begins again" in capsys.readouterr().out
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (whole, out)]
    for each in metrics:
        del each["seconds"], each["date"], each["command"]
    assert metrics[0] == metrics[1]


def test_dashes_in_the_names_of_options_are_underscores():
    given = [
        "--batch-size",
        "3",
        "--data.image-size=a-b",
        "--objective.options.weighted-cluster.alpha=1",
        "--out",
        "a-b",
    ]
    expected = ["--batch_size", "3", "--data.image_size=a-b", "--objective.options.weighted-cluster.alpha=1"]
    assert underscored(given) == [*expected, "--out", "a-b"]
