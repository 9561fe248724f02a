"""`fer-fast export`: files that run without this package, kept only where they are right, with a model card."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from fer_fast.cli import main
from fer_fast.data.faces import load_faces
from fer_fast.data.prepare import to_size
from fer_fast.errors import InputError
from fer_fast.serve import export as exporting
from fer_fast.serve.export import export
from fer_fast.serve.graph import Exported
from fer_fast.serve.model import FaceModel, load
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.evaluation import measure
from one_line import fails
from tiny_backbone import TINY
from tiny_model import CLASSES, keep, tiny_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ALONE = """
import sys

class NoFerFast:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "fer_fast":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoFerFast())
"""


@pytest.fixture(autouse=True, scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", TINY)
        yield


@pytest.fixture(scope="module")
def lmcl(tmp_path_factory):
    """A checkpoint with a cosine head in which an eighth class was enrolled, and which so has a threshold."""
    model = FaceModel(tiny_model("--loss", "lmcl"))
    model.enrol("wink", faces(12)[:4], faces="whole")
    return model.save(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def both(lmcl, tmp_path_factory):
    """It in both formats in one folder: what `export` gave."""
    out = tmp_path_factory.mktemp("exported")
    return export(lmcl, out, opset=20), export(lmcl, out, "torch")


def faces(count, side=32):
    return load_faces(split="test", samples=count, image_size=side).images


def python(code, folder):
    return subprocess.run([sys.executable, "-c", ALONE + code], cwd=folder, capture_output=True, text=True)


def listing(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.mark.parametrize("side", [32, 64])
def test_onnxruntime_gives_what_the_checkpoint_gives(lmcl, both, side):
    kept, _ = both
    assert set(kept.differences) == {"scores", "embeddings", "cosines"}
    assert 0 < max(kept.differences.values()) <= exporting.TOLERANCE
    session = onnxruntime.InferenceSession(kept.model)
    assert [value.shape for value in session.get_inputs()] == [["batch", 1, "height", "width"]]
    assert [value.shape for value in session.get_outputs()] == [["batch", 8], ["batch", 8], ["batch", 8]]
    model = load(lmcl, "cpu")
    for count in (1, 2, 5):
        images = faces(count)
        named = model.predict(images, faces="whole")
        given = images.repeat_interleave(side // 32, 2).repeat_interleave(side // 32, 3)
        scores, embeddings, cosines = session.run(["scores", "embeddings", "cosines"], {"faces": given.numpy()})
        assert scores == pytest.approx(np.array([list(face[0].scores.values()) for face in named]), abs=1e-5)
        assert embeddings == pytest.approx(model.embed(images, faces="whole").numpy(), rel=1e-4, abs=1e-5)
        assert cosines.max(1) == pytest.approx([face[0].cosine for face in named], abs=1e-5)
        known = np.where(cosines.max(1) > 0.6, cosines.argmax(1), -1)
        assert [(*model.classes, "unknown")[number] for number in known] == [face[0].label for face in named]


def test_a_file_says_what_it_is_and_nothing_of_this_machine(both):
    for kept in both:
        assert b"graph.py" not in kept.model.read_bytes()
    model = onnx.load(both[0].model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 20)]
    about = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    inside = {"fer_fast.json": ""}
    torch.export.load(both[1].model, extra_files=inside)
    assert json.loads(inside["fer_fast.json"]) == about == kept.about
    assert about["classes"] == [*CLASSES, "wink"]
    assert about["threshold"] == 0.6
    assert about["input"]["side"] == 32
    assert about["input"]["channels"] == "gray"
    assert about["preparation"]["eye_line"] == 0.38
    assert re.fullmatch("[0-9a-f]{64}", about["weights"])


def snippets(card):
    return re.findall("```python\n(.*?)```", card.read_text(), re.DOTALL)


def photograph(folder):
    picture = Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype=np.uint8))
    picture.save(folder / "face.png")
    return picture


def test_the_card_s_code_runs_as_it_stands_without_this_package(lmcl, both):
    folder = both[0].model.parent
    face = to_size(np.array(photograph(folder).convert("L")), 32)
    ((named,),) = load(lmcl, "cpu").predict(face, faces="whole")
    assert named.cosine > 0.65
    codes = snippets(both[1].card)
    assert len(codes) == 2
    for code in codes:
        assert len([line for line in code.splitlines() if line]) <= 11
        done = python(code, folder)
        assert done.returncode == 0, done.stderr
        label, number = done.stdout.split()
        assert label == named.label
        assert float(number) == pytest.approx(named.cosine, abs=0.01)  # levels are not rounded in the graph


def test_the_card_s_code_of_a_model_of_colour_with_and_without_a_threshold(tmp_path):
    trained = tiny_model("--loss", "lmcl", "--augment.channels", "3", images=(3, 32))
    checkpoint = keep(trained, tmp_path / "run")
    face = to_size(np.array(photograph(tmp_path)), 32)
    ((named,),) = load(checkpoint, "cpu").predict(face, faces="whole")
    for form, threshold in (("onnx", None), ("torch", named.cosine + 0.05)):
        (code,) = snippets(export(checkpoint, tmp_path / form, form, threshold=threshold).card)
        done = python(code.replace("face.png", "../face.png"), tmp_path / form)
        assert done.returncode == 0, done.stderr
        label, number = done.stdout.split()
        assert label == (named.label if threshold is None else "unknown")
        assert float(number) == pytest.approx(named.score if threshold is None else named.cosine, abs=0.01)


def test_the_card_is_as_hugging_face_reads_it(tmp_path):
    trained = tiny_model("--loss", "lmcl")
    folder = keep(trained, tmp_path / "run")
    metrics = measure(trained, load_faces(split="test", samples=40, image_size=32)).metrics
    (folder / "metrics.json").write_text(json.dumps(metrics))
    card = ModelCard.load(export(folder, tmp_path / "out", "torch").card)
    assert (card.data.license, card.data.library_name, card.data.datasets) == ("mit", "pytorch", ["faces"])
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    names = {"accuracy": "accuracy", "recall": "average_accuracy", "f1": "macro_f1"}
    assert found == {kind: pytest.approx(metrics[name], abs=1e-6) for kind, name in names.items()}
    assert f"off by {metrics['calibration']['ece']:.3f} on average (expected calibration error).\n" in card.text
    low, high = metrics["intervals"]["accuracy"]
    assert f"| accuracy | {metrics['accuracy']:.4f} | {low:.4f} to {high:.4f} |" in card.text
    for name, row in metrics["per_class"].items():
        assert re.search(rf"^\| {name} \|.*\| {row['support']} \|$", card.text, re.MULTILINE)
    assert "Lu & Wu 2022" in card.text


def test_numbers_of_other_weights_stay_out_of_the_card(tmp_path):
    trained = tiny_model("--loss", "lmcl")
    folder = keep(trained, tmp_path / "run")
    metrics = measure(trained, load_faces(split="test", samples=40, image_size=32)).metrics
    (folder / "metrics.json").write_text(json.dumps({**metrics, "weights": "0" * 64}))
    card = ModelCard.load(export(folder, tmp_path / "out", "torch").card)
    assert card.data.eval_results is None
    assert "no metrics.json of these weights" in card.text


@pytest.mark.parametrize(("form", "fault"), [("onnx", 1.001), ("torch", 1.001), ("torch", float("nan"))])
def test_a_file_that_differs_is_not_kept(lmcl, tmp_path, monkeypatch, form, fault):
    right = Exported.forward
    monkeypatch.setattr(Exported, "forward", lambda self, x: {n: v * fault for n, v in right(self, x).items()})
    line = "its scores differ from the checkpoint's by"
    with pytest.raises(InputError, match=line):
        export(lmcl, tmp_path / "out", form)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_no_numbers_are_not_exported(tmp_path):
    trained = tiny_model("--loss", "lmcl")
    trained.recogniser.classifier.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="differ from the checkpoint's by nan"):
        export(keep(trained, tmp_path / "run"), tmp_path / "out", "torch")
    assert not (tmp_path / "out").exists()


def test_what_a_run_computed_in_makes_no_difference(tmp_path):
    given = []
    for precision in ("float32", "bfloat16"):
        checkpoint = keep(tiny_model("--hardware.precision", precision), tmp_path / precision)
        kept = export(checkpoint, tmp_path / f"{precision}.pt2")
        given.append(torch.export.load(kept.model).module()(faces(3)))
    torch.testing.assert_close(given[0], given[1], rtol=0, atol=0)


def test_a_second_format_joins_the_first_and_its_card(both):
    out = both[0].model.parent
    assert set(listing(out)) - {"face.png"} == {"model.onnx", "model.pt2", "README.md"}
    assert both[0].card == both[1].card == out / "README.md"
    card = ModelCard.load(out / "README.md")
    assert card.data.tags[-2:] == ["onnx", "pytorch"]
    assert "from photos of their own: wink (4 photos)." in card.text


def test_a_file_has_its_card_beside_it(lmcl, tmp_path):
    kept = export(lmcl, tmp_path / "smile.pt2")
    assert kept.card == tmp_path / "smile.md"
    assert 'torch.export.load("smile.pt2"' in kept.card.read_text()


@pytest.mark.parametrize("text", ["# Mine\n", "", "<!-- fer-fast export: model a, text b -->\n"])
def test_a_foreign_card_stays(lmcl, tmp_path, text, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text(text)
    line = fails(("export", "--checkpoint", lmcl, "--out", out, "--force"), capsys)
    assert "README.md is not as fer-fast export writes it and stays" in line
    assert listing(out) == {"README.md": text.encode()}


def test_a_card_that_was_edited_stays(lmcl, tmp_path, capsys):
    card = export(lmcl, tmp_path / "out", "torch").card
    card.write_text(card.read_text().replace("## Limits", "## What I know\n\nMore.\n\n## Limits"))
    before = listing(tmp_path / "out")
    assert "stays" in fails(("export", "--checkpoint", lmcl, "--out", tmp_path / "out", "--force"), capsys)
    assert listing(tmp_path / "out") == before


def test_only_force_replaces_another_model(both, tmp_path, capsys):
    out, other = both[0].model.parent, keep(tiny_model("--loss", "arcface"), tmp_path / "other")
    before = listing(out)
    assert "model.onnx is there already; --force" in fails(("export", "--checkpoint", other, "--out", out), capsys)
    out = tmp_path / "out"
    out.mkdir()
    for name in ("README.md", "model.onnx"):
        (out / name).write_bytes(before[name])
    line = fails(("export", "--checkpoint", other, "--out", out, "--format", "torch"), capsys)
    assert "README.md is of other weights or another threshold; --force" in line
    assert listing(out) == {name: before[name] for name in ("README.md", "model.onnx")}
    assert main(["export", "--checkpoint", str(other), "--out", str(out), "--format", "torch", "--force"]) == 0
    assert "arcface" in (out / "README.md").read_text()
    assert "model.onnx" not in (out / "README.md").read_text()


def test_the_command_says_what_it_did(lmcl, tmp_path, capsys):
    assert main(["export", "--checkpoint", str(lmcl), "--out", str(tmp_path / "a.pt2")]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    names = [line.partition(":")[0] for line in said.out.splitlines()]
    assert names == ["model", "takes", "gives", "largest difference from the checkpoint, 16 faces", "card"]


def test_mistakes_are_named_before_any_work(lmcl, tmp_path, capsys, monkeypatch):
    def work(*_):
        raise AssertionError("work was begun")

    monkeypatch.setattr(exporting, "traced", work)
    softmax = keep(tiny_model(), tmp_path / "softmax")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "damaged.safetensors").write_bytes(b"x" * 100)
    out = tmp_path / "out"
    for given, words in {
        ("--checkpoint", tmp_path / "none", "--out", out): "no checkpoint at",
        ("--checkpoint", tmp_path / "study", "--out", out): "is a study of several runs",
        ("--checkpoint", tmp_path / "damaged.safetensors", "--out", out): "corrupt or unreadable",
        ("--checkpoint", lmcl): "--out",
        ("--checkpoint", lmcl, "--out", out, "--format", "onyx"): "invalid choice: 'onyx'",
        ("--checkpoint", lmcl, "--out", "a.onnx", "--format", "torch"): "ends in .onnx, and --format is torch",
        ("--checkpoint", lmcl, "--out", out, "--opset", "17"): "opset is 17; allowed: 18 to 25",
        ("--checkpoint", lmcl, "--out", out, "--opset", "x"): "invalid int value",
        ("--checkpoint", lmcl, "--out", out, "--threshold", "1"): "threshold is 1.0; allowed",
        ("--checkpoint", lmcl, "--out", out, "--threshold", "nan"): "threshold is nan; allowed",
        ("--checkpoint", softmax, "--out", out, "--threshold", "0.5"): "(softmax) does not have",
        ("--checkpoint", lmcl, "--out", tmp_path / "file"): "file is a file",
        ("--checkpoint", lmcl, "--out", tmp_path / "file" / "a.onnx"): "file is a file",
        ("--checkpoint", lmcl, "--out", tmp_path / "folder.onnx"): "is a folder",
    }.items():
        assert words in fails(("export", *given), capsys), given
    assert not out.exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_package_that_is_missing_is_named_with_what_brings_it(lmcl, tmp_path, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    line = fails(("export", "--checkpoint", lmcl, "--out", tmp_path / "out"), capsys)
    assert f'{package} is not installed, which --format onnx needs: pip install "fer-fast[export]"' in line
    assert main(["export", "--checkpoint", str(lmcl), "--out", str(tmp_path / "out"), "--format", "torch"]) == 0


@pytest.mark.parametrize("where", ["fer_fast.serve.export.traced", "torch.export.save", "torch.export.load"])
def test_what_an_exporter_raises_is_said_in_a_line(lmcl, tmp_path, capsys, monkeypatch, where):
    def fault(*_, **__):
        print("much")
        print("more", file=sys.stderr)
        raise RuntimeError("it does not\nwork")

    monkeypatch.setattr(where, fault)
    line = fails(("export", "--checkpoint", lmcl, "--out", tmp_path / "o", "--format", "torch"), capsys)
    assert "this model cannot be exported, --format torch: it does not" in line
    assert not (tmp_path / "o").exists()


def test_a_disk_that_is_full_leaves_the_old_file(lmcl, tmp_path, capsys, monkeypatch):
    export(lmcl, tmp_path / "out", "torch")
    before = listing(tmp_path / "out")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fer_fast.written.os.fsync", full)
    line = fails(("export", "--checkpoint", lmcl, "--out", tmp_path / "out", "--format", "torch", "--force"), capsys)
    assert "No space left on device" in line
    assert listing(tmp_path / "out") == before
