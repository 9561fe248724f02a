"""`fer-fast table`: published numbers, those of finished runs beside them, and what these did otherwise."""

import json

import pytest

from fer_fast.cli import main
from fer_fast.train.config import config_parser, recipe_layer, resolve, to_yaml
from fer_fast.train.papers import load_paper

CLASSES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a run's folder, below the working directory; gives its name."""
    monkeypatch.chdir(tmp_path)
    parser = config_parser()

    def write(name, recipe, accuracy, *flags, classes=CLASSES, confusion=None, **metrics):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        config, _ = resolve(parser, list(flags), [recipe_layer(recipe)])
        (folder / "config.yaml").write_text(to_yaml(config))
        (folder / "metrics.json").write_text(
            json.dumps(
                {
                    "accuracy": accuracy,
                    "average_accuracy": accuracy - 0.1,
                    "macro_f1": accuracy - 0.2,
                    "classes": classes,
                    "confusion_matrix": confusion or [[1] * len(classes)] * len(classes),
                    "per_class": {key: {"precision": None, "recall": 0.5, "f1": 0.25} for key in classes},
                    **metrics,
                }
            )
        )
        return name

    return write


def shown(capsys, *arguments):
    assert main(["table", *arguments]) == 0
    return capsys.readouterr().out


def cells(capsys, *arguments):
    """(row, column) -> results, of the one table asked for."""
    (table,) = json.loads(shown(capsys, *arguments, "--json"))["tables"]
    return {(cell["row"], cell["column"]): cell["results"] for cell in table["cells"]}


def test_published_numbers_and_a_command_for_every_row(capsys):
    printed = shown(capsys, "variant")
    assert "Table 8. Accuracy on FER2013" in printed
    assert "Softmax     59.77         55.92   59.21     59.15        56.33    60.85" in printed
    commands = [line.split("  #")[0] for line in printed.splitlines() if line.startswith("fer-fast train")]
    assert len(commands) == 124
    assert "fer-fast train --recipe variant/8/resnet18-softmax --root DIR" in commands
    assert "fer-fast train --recipe variant/2/resnet18-softmax --root DIR --folds 10" in commands
    assert "fer-fast bench table10" in printed
    assert "variant/3 --root DIR --folds 10  # the same run as variant/2/resnet18-variant" in printed


def test_where_it_is_piped_prose_is_wrapped_and_commands_are_not(capsys):
    lines = shown(capsys, "ecan").splitlines()
    paper = load_paper("ecan")
    commands = [line for line in lines if line.startswith("fer-fast ")]
    assert len(commands) == sum(len(table.recipes) for table in paper.tables.values())
    assert max(map(len, commands)) > 120 >= max(len(line) for line in lines if line not in commands)
    text = " ".join(" ".join(lines).split())
    assert len(paper.note) > 120
    assert " ".join(paper.note.split()) in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["weighted-cluster", "--table", "5"], "--recipe weighted-cluster/5/model-10 --root DIR --model.weights FILE"),
        (["weighted-cluster", "--table", "6"], "FILE: weights that you have, of ImageNet's ResNet-50"),
        (["lmcl", "--table", "2"], "--recipe lmcl/2/s30-m0.36 --root DIR --test-root DIR\n"),
        (["lmcl", "--table", "2"], "\n--root DIR: expw; --test-root DIR: ckplus (fer-fast data about NAME)\n"),
        (
            ["lmcl", "--table", "3"],
            "fer-fast eval --checkpoint RUN --dataset rafdb-compound --root DIR --enrol 10 --verify 10",
        ),
        (["ecan", "--table", "2"], "\n--root DIR: rafdb, fer2013 (fer-fast data about NAME)"),
        (["ecan", "--table", "2", "--json"], '"column": "RAF-DB none"'),
        (["variant", "--table", "9"], "The paper aligned faces by Haar cascades; ours take FER2013's 48-pixel crops"),
        (["ad-corre", "--table", "8"], "Our cross-entropy is the same network of seven embeddings, the loss left out."),
        (["ad-corre", "--table", "figure-6"], "Figure 6. The weight λ of the loss, on AffectNet-7, %"),
    ],
)
def test_what_a_row_takes(capsys, arguments, line):
    assert line in shown(capsys, *arguments)


@pytest.mark.parametrize("width", ["80", "100"])
@pytest.mark.parametrize("paper", ["variant", "weighted-cluster", "lmcl", "ecan"])
def test_tables_fit_a_terminal(capsys, monkeypatch, write, paper, width):
    monkeypatch.setenv("COLUMNS", width)
    rows = {"variant": "8/mobilenetv3-center", "weighted-cluster": "5/model-7", "lmcl": "2/s20-m0.48"}
    name = f"{paper}/{rows.get(paper, '2/fer2013-weak-ecan')}"
    others = dict.fromkeys(("cohen_kappa", "krippendorff_alpha", "auc", "auc_pr"), 0.6)
    runs = [write(f"run-{i}", name, 0.5 + i / 7, "--seed", str(i), "--epochs", "1", **others) for i in range(3)]
    grid = next(part for part in shown(capsys, paper, *runs).split("\n\n") if "±14.29" in part)
    assert max(len(line.rstrip()) for line in grid.splitlines()) <= int(width)


@pytest.mark.parametrize("paper", ["variant", "lmcl"])
def test_no_number_is_cut_in_a_narrow_terminal(capsys, monkeypatch, paper):
    monkeypatch.setenv("COLUMNS", "40")
    assert "…" not in shown(capsys, paper)


def test_a_run_stands_below_the_number_of_its_row(capsys, write):
    run = write("one", "variant/8/resnet18-center", 0.5432, "--root", "/somewhere", "--hardware.device", "cpu")
    results = cells(capsys, "variant", run, "--table", "8")
    expected = {"mean": pytest.approx(54.32), "deviation": None, "runs": ["one"], "differences": "", "notes": []}
    assert {key: value for key, value in results.items() if value} == {("Center", "ResNet"): [expected]}
    printed = shown(capsys, "variant", run, "--table", "8")
    lines = printed.splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("Center"))
    assert lines[row + 1].split() == ["54.32"]
    assert lines[row].index("56.70") == lines[row + 1].index("54.32")
    assert "  variant/8/resnet18-center: one\n" in printed


def test_seeds_are_averaged_with_the_deviation_of_a_sample(capsys, write):
    runs = [write(f"seed-{i}", "ecan/5/ecan", 0.70 + i / 100, "--seed", str(i)) for i in range(3)]
    results = cells(capsys, "ecan", *runs, "--table", "5")
    (accuracy,), (f1,) = results["ECAN", "Accuracy"], results["ECAN", "Macro-F1"]
    assert (accuracy["mean"], accuracy["deviation"]) == (pytest.approx(71), pytest.approx(1))
    assert (f1["mean"], f1["deviation"]) == (pytest.approx(0.51), pytest.approx(0.01))
    assert "71.00 ±1.00" in shown(capsys, "ecan", *runs, "--table", "5")


def test_folds_are_averaged_before_seeds(capsys, write):
    of = {(0, 1): 0.2, (0, 2): 0.4, (1, 1): 0.6, (1, 2): 0.8}
    runs = [
        write(f"{seed}-{fold}", "variant/2/alexnet-range", value, "--seed", str(seed), "--data.fold", str(fold))
        for (seed, fold), value in of.items()
    ]
    (one,) = cells(capsys, "variant", *runs[:2], "--table", "2")["Range", "AlexNet"]
    assert (one["mean"], one["deviation"]) == (pytest.approx(30), pytest.approx(14.1421356))
    assert one["differences"] == "cut: folds 2 of 10"
    (both,) = cells(capsys, "variant", *runs, "--table", "2")["Range", "AlexNet"]
    assert (both["mean"], both["deviation"]) == (pytest.approx(50), pytest.approx(28.2842712))


def test_confusion_matrices_of_folds_are_added(capsys, write):
    six = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
    first, second = ([[0] * 6 for _ in six] for _ in range(2))
    first[2][2:4], second[2][2:4] = [3, 1], [0, 6]
    runs = [
        write(f"fold-{i}", "variant/5", 0.5, "--data.fold", str(i), classes=six, confusion=matrix)
        for i, matrix in enumerate((first, second), 1)
    ]
    results = cells(capsys, "variant", *runs, "--table", "5")
    assert [results["Fe", column][0]["mean"] for column in ("Fe", "Ha", "An")] == pytest.approx([30, 70, 0])
    assert results["An", "An"][0]["mean"] is None
    assert "variant/4/resnet18-variant: fold-1, fold-2, a\n" in shown(capsys, "variant", *runs, "--table", "4")


def test_runs_of_the_same_seed_and_fold_are_one_fold(capsys, write):
    def of(name, accuracy, *flags):
        return write(name, "variant/2/alexnet-range", accuracy, *flags)

    runs = [of("first", 0.2), of("again", 0.6, "--data.fold", "1"), of("second", 0.8, "--data.fold", "2")]
    (result,) = cells(capsys, "variant", *runs, "--table", "2")["Range", "AlexNet"]
    assert (result["mean"], result["deviation"]) == (pytest.approx(60), pytest.approx(28.2842712))
    assert result["differences"] == "cut: folds 2 of 10; 2 runs of the same seed and fold"
    (result,) = cells(capsys, "variant", *runs[:2], "--table", "2")["Range", "AlexNet"]
    assert (result["mean"], result["deviation"]) == (pytest.approx(40), None)
    assert result["differences"] == "cut: folds 1 of 10; 2 runs of the same seed and fold"


def test_confusion_matrices_of_the_same_fold_are_averaged(capsys, write):
    six = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
    counts = {"one": ((3, 1), 1), "same": ((1, 3), 1), "other": ((4, 0), 2)}  # fear that was taken for fear, happiness
    for name, (row, fold) in counts.items():
        matrix = [[0] * 6 for _ in six]
        matrix[2][2:4] = row
        write(name, "variant/5", 0.5, "--data.fold", str(fold), classes=six, confusion=matrix)
    results = cells(capsys, "variant", *counts, "--table", "5")
    assert results["Fe", "Fe"][0]["mean"] == pytest.approx(75)  # ((3 + 1) / 2 + 4) / 8


def test_another_precision_is_shown(capsys, write):
    named = write("named", "ecan/5/ecan", 0.7, "--hardware.precision", "bfloat16", "--hardware.device", "cpu")
    (result,) = cells(capsys, "ecan", named, "--table", "5")["ECAN", "Accuracy"]
    words = "changed: hardware.precision bfloat16 for float32"
    assert result["differences"] == words
    write("unnamed", "variant", 0.6, "--hardware.precision", "bfloat16")
    (result,) = cells(capsys, "variant", "unnamed", "--table", "8")["Proposed", "ResNet"]
    assert result["differences"] == words


def test_one_run_stands_in_every_table_that_prints_it(capsys, write):
    run = write("one", "ad-corre/9/k7", 0.61)
    tables = json.loads(shown(capsys, "ad-corre", run, "--json"))["tables"]
    filled = {table["name"]: sum(bool(cell["results"]) for cell in table["cells"]) for table in tables}
    assert {name: count for name, count in filled.items() if count} == {
        **{f"ad-corre/{label}": 1 for label in ("2", "8", "9", "figure-6")},
        **{"ad-corre/5": 21, "ad-corre/11": 10},
    }


def test_runs_of_one_row_under_several_names_are_averaged_and_each_counts_once(capsys, write):
    one = write("one", "ad-corre/9/k7", 0.61, "--seed", "1", notes=["test: half of it"])
    other = write("other", "ad-corre/2", 0.63, "--seed", "2", notes=["test: half of it", "train: small"])
    (result,) = cells(capsys, "ad-corre", one, other, f"{one}/", "--table", "8")["Ad-Corre", "Accuracy"]
    assert (result["mean"], result["runs"]) == (pytest.approx(62), ["one", "other"])
    printed = shown(capsys, "ad-corre", one, other, "--table", "2")
    assert printed.count("  data: test: half of it\n  data: train: small\n") == 1


def test_a_study_stands_for_its_runs(capsys, write, tmp_path):
    folders = [f"fold-{i}" for i in range(1, 11)]
    for i, folder in enumerate(folders, 1):
        write(f"study/{folder}", "variant/6/alexnet-center", 0.5 + i / 100, "--data.fold", str(i))
    (tmp_path / "study/study.json").write_text("{}")
    metrics = tmp_path / "study/metrics.json"
    metrics.write_text(json.dumps({"runs": [{"folder": folder} for folder in folders]}))
    (result,) = cells(capsys, "variant", "study", "--table", "6")["Center", "AlexNet"]
    assert (result["mean"], result["differences"]) == (pytest.approx(55.5), "")
    assert "variant/6/alexnet-center: study (10 runs)\n" in shown(capsys, "variant", "study", "--table", "6")
    metrics.write_text("{}")
    assert "names no runs" in fails(capsys, "variant", "study")
    for runs in ("x", [], [{}], ["fold-1"], [{"folder": 1}]):
        metrics.write_text(json.dumps({"runs": runs}))
        assert "names no runs" in fails(capsys, "variant", "study")
    write("other", "variant/6/alexnet-center", 0.5)
    for folder in ("../other", str(tmp_path / "other")):
        metrics.write_text(json.dumps({"runs": [{"folder": folder}]}))
        assert f"{folder} is not in the folder of the study" in fails(capsys, "variant", "study")
    metrics.write_text(json.dumps({"runs": [{"folder": "."}]}))
    assert "study is a study, not a run" in fails(capsys, "variant", "study")
    metrics.unlink()
    assert "the study in study is not finished" in fails(capsys, "variant", "study")


def test_what_a_run_did_otherwise_is_said_below_its_table(capsys, write):
    cut = write("cut", "ecan/2/fer2013-none-ecan", 0.3, "--epochs", "2", "--augment.size", "24", "--batch_size", "8")
    whole = write("whole", "ecan/2/fer2013-none-ecan", 0.6, "--optimiser.name", "adam")
    printed = shown(capsys, "ecan", cut, whole, "--table", "2")
    assert "30.00 a" in printed
    assert "60.00 b" in printed
    assert "  ecan/2/fer2013-none-ecan: cut, a\n  ecan/2/fer2013-none-ecan: whole, b\n" in printed
    assert "\n  a  cut: epochs 2 of 200, augment.size 24 of 48; changed: batch_size 8 for 256\n" in printed
    assert "\n  b  changed: optimiser.name adam for sgd\n" in printed


def test_weights_that_a_row_starts_from(capsys, write):
    fresh = write("fresh", "weighted-cluster/5/model-8", 0.5)
    tuned = write("tuned", "weighted-cluster/5/model-8", 0.6, "--model.weights", "/a/file", "--model.geometry", "caffe")
    results = cells(capsys, "weighted-cluster", fresh, tuned, "--table", "5")[
        "8 Weighted-softmax, pre-trained", "Accuracy"
    ]
    assert [result["differences"] for result in results] == [
        "changed: model.weights none for VGGFace2's SE-ResNet-50",
        "",
    ]


def test_runs_without_a_row_are_matched_by_their_settings(capsys, write):
    same = write("same", "variant", 0.61)
    other = write("other", "variant", 0.62, "--epochs", "3")
    paper = write("paper", "ecan/5/ecan", 0.63)
    printed = shown(capsys, "variant", same, other, paper, "--table", "8")
    assert "  variant/8/resnet18-variant: same\n" in printed
    assert (
        "other is of no row here: no row has its settings; "
        "nearest is variant/8/resnet18-variant, cut: epochs 3 of 100\n"
    ) in printed
    assert "paper is of no row here: it is of ecan/5/ecan\n" in printed


def test_a_run_far_from_every_row_is_told_in_a_few_words(capsys, write):
    flags = ["--dataset", "rafdb", "--batch_size", "7", "--ema", "0.5", "--optimiser.rate", "0.3", "--epochs", "3"]
    run = write("far", "variant", 0.6, *flags)
    line = " ".join(shown(capsys, "variant", run).rpartition("far is of no row")[2].split())
    assert line.endswith("changed: dataset rafdb for fer2013, batch_size 7 for 64; cut: epochs 3 of 100 and 2 more")


def test_enrolled_classes_stand_in_their_table(capsys, write, tmp_path):
    table = load_paper("lmcl").tables["3"]
    names = [title.lower() for title in table.rows if title != "Average"]
    recalls = {"sadly angry": 0.9, "happily surprised": 0.7}
    per_class = {name: {"recall": recalls.get(name)} for name in names}
    how = {"samples": 10, "threshold": 0.6, "verify": 10, "seed": 3, "unknown": 0.1}
    for name, changes in (("as-printed", {}), ("fewer", {"samples": 5, "verify": None})):
        write(name, "lmcl", 0.9, classes=names, per_class=per_class, enrol={**how, **changes})
        file = tmp_path / name / "metrics.json"
        trained = "lmcl/2/s30-m0.38" if name == "as-printed" else "quick"
        file.write_text(json.dumps({**json.loads(file.read_text()), "recipe": trained}))
        (tmp_path / name / "config.yaml").unlink()
    results = cells(capsys, "lmcl", "as-printed", "--table", "3")
    rows = ("Happily surprised", "Sadly angry", "Sadly fearful", "Average")
    means = [results[row, "Accuracy"][0]["mean"] for row in rows]
    assert means == [pytest.approx(70), pytest.approx(90), None, pytest.approx(80)]
    printed = shown(capsys, "lmcl", "as-printed", "fewer", "--table", "3")
    assert "  lmcl/3: as-printed\n  lmcl/3: fewer, a\n" in printed
    assert (
        "  a  cut: enrol.samples 5 of 10; changed: enrol.verify none for 10, recipe of the checkpoint quick for "
        in (printed)
    )
    write("faces", "lmcl", 0.9, classes=names[1:], per_class=per_class, enrol=how)
    assert f"it enrolled other classes than lmcl/3, whose {names[0]} is not among them" in shown(
        capsys, "lmcl", "faces", "--table", "3"
    )
    assert "fewer is of no row here" in shown(capsys, "ecan", "fewer", "--table", "5")


def test_sizes_are_counted(capsys):
    printed = shown(capsys, "ad-corre", "--table", "11")
    row = next(line for line in printed.splitlines() if line.startswith("7 embeddings"))
    ours = printed.splitlines()[printed.splitlines().index(row) + 1].split()
    assert row.split()[2:] == ["24,545,839", "4,558,080,876"]
    assert ours == ["24,545,839", "4,554,513,632"]


def fails(capsys, *arguments):
    """The one line on standard error."""
    assert main(["table", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("fer-fast: error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    return captured.err


def test_bad_runs_are_one_line(capsys, write, tmp_path):
    run = write("run", "ecan/5/ecan", 0.5)
    assert "nowhere does not exist" in fails(capsys, "ecan", "nowhere")
    assert "is no folder of a run" in fails(capsys, "ecan", "run/config.yaml")
    config = (tmp_path / "run/config.yaml").read_text()
    (tmp_path / "run/config.yaml").write_text(config + "opochs: 3\n")
    assert "run: " in (line := fails(capsys, "ecan", run))
    assert "opochs" in line
    (tmp_path / "run/config.yaml").unlink()
    assert "config.yaml" in fails(capsys, "ecan", run)
    (tmp_path / "run/config.yaml").write_text(config)
    for damaged, word in (
        ('{"accuracy": 0.5', "is damaged"),
        ("[1]", "no mapping"),
        ('{"accuracy": 1}', "has no classes"),
    ):
        (tmp_path / "run/metrics.json").write_text(damaged)
        assert word in fails(capsys, "ecan", run)
    (tmp_path / "run/metrics.json").unlink()
    assert "the run in run is not finished: there is no metrics.json" in fails(capsys, "ecan", run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["varient"], 'did you mean "variant"'),
        (["variant", "--table", "12"], "--table: '12' is not one of 2, 3"),
        ([], "PAPER"),
        (["variant", "--tabel", "2"], "did you mean --table"),
    ],
)
def test_bad_arguments_are_one_line(capsys, arguments, message):
    assert message in fails(capsys, *arguments)
