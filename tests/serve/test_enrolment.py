"""Classes enrolled in a model: directions by hand, undo bit for bit, and what is refused."""

import base64
import json

import numpy as np
import pytest
import torch

import fer_fast
from fer_fast.errors import InputError
from fer_fast.serve import enrolment
from fer_fast.serve.enrolment import Unusable, mean_directions, prototypes
from fer_fast.train import checkpoint
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.checkpoint import load_checkpoint
from quarters import QUARTERS, SEVEN, features, picture, quarters_run

PHOTOS = [picture((255, 200, 40 + 9 * i, 0), seed=i, noise=30) for i in range(5)]
OTHERS = [picture((0, 30, 255, 120), seed=i, noise=30) for i in range(4)]
HALF_A_BIT = 2**-25  # of a float32 below 1


@pytest.fixture(autouse=True)
def backbone(monkeypatch):
    monkeypatch.setitem(BACKBONES, "quarters", QUARTERS)


@pytest.fixture
def run(tmp_path):
    return quarters_run(tmp_path / "run")


def directions(model, photos):
    """x / ‖x‖ of each photo in float64, from the model's float32 features, which are those known by hand."""
    rows = model.embed(photos, faces="whole").double().numpy()
    np.testing.assert_allclose(rows, [features(photo) for photo in photos], rtol=0, atol=4e-6)
    return [x / np.linalg.norm(x) for x in rows]


def direction(units):
    """The direction and the mean of directions."""
    mean = sum(units) / len(units)
    return mean / np.linalg.norm(mean), mean


def weight(model):
    return model.trained.recogniser.classifier.weight.detach()


def bits(folder):
    """Every byte of a checkpoint's files."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("loss", ["lmcl", "arcface", "a-softmax"])
def test_a_class_is_the_direction_of_its_photos(tmp_path, loss):
    model = fer_fast.load(quarters_run(tmp_path / loss, f"--loss={loss}"), "cpu")
    old, units = weight(model).clone(), directions(model, PHOTOS)
    told = model.enrol("contempt", PHOTOS, faces="whole")
    expected, _ = direction(units)
    np.testing.assert_allclose(weight(model)[7].double().numpy(), expected, rtol=0, atol=HALF_A_BIT)
    assert torch.equal(weight(model)[:7], old)
    assert model.classes == (*SEVEN, "contempt")
    assert model.threshold == 0.6
    left_out = [units[i] @ direction(units[:i] + units[i + 1 :])[0] for i in range(5)]
    rows = old.double().numpy() / np.linalg.norm(old.double().numpy(), axis=1, keepdims=True)
    assert told.photos == 5
    assert told.cosine == pytest.approx(np.mean(units @ expected), abs=1e-6)
    assert told.left_out == pytest.approx((min(left_out), np.mean(left_out)), abs=1e-6)
    assert told.recognised == sum(own > (rows @ unit).max() for own, unit in zip(left_out, units, strict=True))
    assert told.nearest == SEVEN[(rows @ expected).argmax()]
    assert told.nearest_cosine == pytest.approx((rows @ expected).max(), abs=1e-6)
    assert told.left_out[1] > told.nearest_cosine
    (face,) = model.predict(PHOTOS[0], faces="whole")[0]
    assert face.label == "contempt"
    assert face.cosine == pytest.approx(units[0] @ expected, abs=1e-6)
    assert sum(face.scores.values()) == pytest.approx(1)


def test_means_are_those_of_directions_before_they_are_normalised():
    values = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(20) % 3
    means = mean_directions(values, labels, 3)
    for number in range(3):
        torch.testing.assert_close(means[number], torch.stack([x / x.norm() for x in values[labels == number]]).mean(0))
    torch.testing.assert_close(prototypes(values, labels, 3), means / means.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("eta", [0.25, 1.0])
def test_a_refresh_is_a_smooth_average_with_the_old_direction(run, eta):
    model = fer_fast.load(run, "cpu")
    old = weight(model).double().numpy().copy()
    unit, mean = direction(directions(model, OTHERS))
    model.enrol("fear", OTHERS, faces="whole", refresh=eta)
    expected = (1 - eta) * old[4] / np.linalg.norm(old[4]) + eta * mean
    expected = unit if eta == 1 else expected / np.linalg.norm(expected)
    np.testing.assert_allclose(weight(model)[4].double().numpy(), expected, rtol=0, atol=HALF_A_BIT)
    assert model.classes == SEVEN
    keep = [0, 1, 2, 3, 5, 6]
    assert np.array_equal(weight(model).double().numpy()[keep], old[keep])


def test_undo_gives_back_every_bit(run, tmp_path):
    model = fer_fast.load(run, "cpu")
    model.enrol("contempt", PHOTOS, faces="whole")
    model.threshold = 0.4
    model.enrol("contempt", OTHERS, faces="whole", refresh=0.3)
    model.enrol("fear", OTHERS, faces="whole", refresh=0.1)
    model.save(tmp_path / "three")
    again = fer_fast.load(tmp_path / "three", "cpu")
    assert torch.equal(weight(again), weight(model))
    assert (again.classes, again.threshold) == (model.classes, 0.4)
    journal = again.trained.state["enrolled"]
    assert [(each["op"], each["name"], each["samples"], each["eta"]) for each in journal] == [
        ("add", "contempt", 5, None),
        ("refresh", "contempt", 4, 0.3),
        ("refresh", "fear", 4, 0.1),
    ]
    assert [each["threshold"] for each in journal] == [None, 0.4, 0.4]
    assert [again.undo(), again.undo(), again.undo()] == ["fear", "contempt", "contempt"]
    again.save(tmp_path / "undone")
    (tensors, state), (old, was) = load_checkpoint(tmp_path / "undone"), load_checkpoint(run)
    assert list(state.items()) == list(was.items())
    assert tensors.keys() == old.keys()
    assert all(torch.equal(tensors[name], old[name]) for name in old)
    assert (tmp_path / "undone/checkpoint.json").read_bytes() == (run / "checkpoint.json").read_bytes()
    with pytest.raises(InputError, match="nothing to undo"):
        again.undo()


def test_undo_of_one_refresh_leaves_the_class(run):
    model = fer_fast.load(run, "cpu")
    model.enrol("contempt", PHOTOS, faces="whole")
    before = weight(model).clone()
    model.enrol("contempt", OTHERS, faces="whole", refresh=0.5)
    assert not torch.equal(weight(model), before)
    assert model.undo() == "contempt"
    assert torch.equal(weight(model), before)
    assert model.classes[-1] == "contempt"


def test_undo_of_a_refresh_gives_back_bytes(run):
    """-0, the smallest number and its negative: the journal holds bytes, not decimals."""
    tensors, state = load_checkpoint(run)
    tensors["classifier.weight"].view(torch.int32)[4] = torch.tensor([-(2**31), 1, -(2**31) + 1, 0x3F800000])
    checkpoint.save_checkpoint(run, tensors, state)
    model = fer_fast.load(run, "cpu")
    model.enrol("fear", OTHERS, faces="whole", refresh=1.0)
    assert weight(model)[4].isfinite().all()
    model.undo()
    assert torch.equal(weight(model).view(torch.int32), tensors["classifier.weight"].view(torch.int32))


def test_a_class_without_a_direction_is_not_refreshed(run):
    tensors, state = load_checkpoint(run)
    tensors["classifier.weight"][4] = torch.nan
    checkpoint.save_checkpoint(run, tensors, state)
    with pytest.raises(InputError, match="the photos of fear give no direction"):
        fer_fast.load(run, "cpu").enrol("fear", OTHERS, faces="whole", refresh=0.5)


def test_the_order_of_photos_changes_no_digest(run):
    digests = []
    for photos in (PHOTOS, PHOTOS[::-1], OTHERS):
        model = fer_fast.load(run, "cpu")
        model.enrol("contempt", photos, faces="whole")
        digests.append(model.trained.state["enrolled"][0]["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_a_killed_write_leaves_the_old_file(run, tmp_path, monkeypatch):
    model = fer_fast.load(run, "cpu")
    before = bits(run)
    model.enrol("contempt", PHOTOS, faces="whole")

    def stop(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("fer_fast.written.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        model.save(run)
    monkeypatch.undo()
    assert {name: content for name, content in bits(run).items() if not name.startswith(".")} == before


def test_a_file_of_any_name_is_a_checkpoint(run, tmp_path):
    model = fer_fast.load(run, "cpu")
    model.enrol("contempt", PHOTOS, faces="whole")
    path = model.save(tmp_path / "deep" / "eight.safetensors")
    assert path == tmp_path / "deep" / "eight.safetensors"
    assert json.loads((tmp_path / "deep" / "eight.json").read_text())["classes"] == [*SEVEN, "contempt"]
    assert fer_fast.load(path, "cpu").classes == (*SEVEN, "contempt")


def test_a_network_built_by_its_classes_keeps_its_width(tmp_path):
    """Ad-Corre embeds once for each class that it was trained on."""
    run = quarters_run(tmp_path / "run", "--loss=ad-corre", "--objective.classifier=lmcl", "--model.embedding_dim=8")
    model = fer_fast.load(run, "cpu")
    model.enrol("contempt", PHOTOS, faces="whole")
    again = fer_fast.load(model.save(tmp_path / "eight"), "cpu")
    assert again.trained.recogniser.encoder.head.count == 7
    assert torch.equal(weight(again), weight(model))
    assert again.predict(PHOTOS[0], faces="whole")[0][0].label == "contempt"


def test_the_first_version_s_files_are_written_as_the_present_one_s(run, tmp_path):
    tensors, state = load_checkpoint(run)
    wide = {**checkpoint.prefixed("best", tensors), "optimiser.0": torch.zeros(3)}
    checkpoint._save(run / "checkpoint.safetensors", "checkpoint.safetensors", wide, {**state, "weights": "best"})
    model = fer_fast.load(run, "cpu")
    model.enrol("contempt", PHOTOS, faces="whole")
    assert fer_fast.load(model.save(tmp_path / "new"), "cpu").classes[-1] == "contempt"


# What is refused, with the model as it was


@pytest.mark.parametrize("loss", ["softmax", "l-softmax"])
def test_a_classifier_of_other_than_directions(tmp_path, loss):
    model = fer_fast.load(quarters_run(tmp_path / loss, f"--loss={loss}"), "cpu")
    with pytest.raises(InputError, match=rf"as lmcl, arcface, a-softmax do; the classifier .* is {loss}"):
        model.enrol("contempt", PHOTOS, faces="whole")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("happiness", {}, "there is a class 'happiness' already"),
        ("Happiness", {}, "there is a class 'happiness' already"),
        ("unknown", {}, "cannot be called 'unknown'"),
        ("Unknown", {}, "cannot be called 'Unknown'"),
        ("", {}, "1 to 64 printable characters"),
        (" contempt", {}, "1 to 64 printable characters"),
        ("con\ntempt", {}, r"'con\\\\ntempt'"),
        ("con\x1b[31mtempt", {}, "printable"),
        ("x" * 65, {}, "1 to 64 printable"),
        ("contempt", {"refresh": 0.5}, "refresh: class: 'contempt' is not one of neutral"),
        ("fear", {"refresh": 0.0}, "refresh is 0.0; allowed: above 0, to 1"),
        ("fear", {"refresh": 1.5}, "refresh is 1.5"),
        ("fear", {"refresh": float("nan")}, "refresh is nan"),
        ("contempt", {"faces": "all"}, "faces: 'all' is not one of largest, whole"),
    ],
)
def test_names_and_numbers(run, name, options, message):
    model = fer_fast.load(run, "cpu")
    with pytest.raises(InputError, match=message) as error:
        model.enrol(name, PHOTOS, **{"faces": "whole", **options})
    assert "\n" not in str(error.value)
    assert (model.classes, model.threshold) == (SEVEN, None)


def test_a_name_composed_otherwise_is_the_same_name(run):
    model = fer_fast.load(run, "cpu")
    model.enrol("gêne", PHOTOS, faces="whole")
    with pytest.raises(InputError, match="already"):
        model.enrol("ge\N{COMBINING CIRCUMFLEX ACCENT}ne", OTHERS, faces="whole")


def test_every_photo_that_cannot_be_used_is_named(run, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    model = fer_fast.load(run, "cpu")
    before = weight(model).clone()
    photos = [PHOTOS[0], broken, tmp_path / "missing.png", PHOTOS[1].astype(np.float32), PHOTOS[2]]
    with pytest.raises(Unusable) as error:
        model.enrol("contempt", photos, faces="whole")
    assert [line.split(":")[0] for line in error.value.lines] == [
        str(broken),
        str(tmp_path / "missing.png"),
        "photo 4 of contempt",
    ]
    assert torch.equal(weight(model), before)
    with pytest.raises(Unusable, match="photo 1 of contempt: no face was found; faces whole"):
        model.enrol("contempt", PHOTOS)
    with pytest.raises(InputError, match="contempt has no photos"):
        model.enrol("contempt", [])
    assert (model.classes, model.threshold, "enrolled" in model.trained.state) == (SEVEN, None, False)


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf"), 1e-9])
def test_features_without_a_direction(run, scale):
    model = fer_fast.load(run, "cpu")
    with torch.no_grad():
        model.trained.recogniser.encoder.backbone.network.scale.fill_(scale)
    with pytest.raises(Unusable, match="photo 2 of contempt: its features have no direction"):
        model.enrol("contempt", PHOTOS[:2], faces="whole")


def test_photos_whose_directions_cancel(run):
    model = fer_fast.load(run, "cpu")
    opposite = [picture((255, 0, 255, 0)), picture((0, 255, 0, 255))]
    with pytest.raises(InputError, match="the photos of contempt give no direction"):
        model.enrol("contempt", opposite, faces="whole")


@pytest.mark.parametrize("journal", [[{"op": "refresh", "name": "fear", "threshold": None}], [{"op": "refresh"}]])
def test_a_damaged_journal(tmp_path, journal):
    model = fer_fast.load(quarters_run(tmp_path / "run", enrolled=journal), "cpu")
    with pytest.raises(InputError, match="the journal of enrolled classes is damaged"):
        model.undo()
    short = [{**journal[0], "name": "fear", "threshold": None, "before": base64.b64encode(b"1234").decode()}]
    model = fer_fast.load(quarters_run(tmp_path / "short", enrolled=short), "cpu")
    with pytest.raises(InputError, match="the journal of enrolled classes is damaged"):
        model.undo()


@pytest.mark.parametrize("journal", [5, [3], [{}], {"op": "add"}])
def test_a_checkpoint_with_a_journal_that_is_none(tmp_path, journal):
    with pytest.raises(InputError, match="is corrupt"):
        fer_fast.load(quarters_run(tmp_path / "run", enrolled=journal), "cpu")


# What is warned of


def warnings_of(record):
    return [str(each.message) for each in record]


def test_few_photos_and_the_same_twice(run):
    model = fer_fast.load(run, "cpu")
    with pytest.warns(UserWarning, match=".") as record:
        told = model.enrol("contempt", [PHOTOS[0]], faces="whole")
    assert warnings_of(record) == ["contempt is enrolled by 1 photo; about ten make a direction"]
    assert told.left_out is None
    with pytest.warns(UserWarning, match=".") as record:
        model.enrol("awe", [OTHERS[0], OTHERS[1], OTHERS[0]], faces="whole")
    assert warnings_of(record) == ["awe: photo 3 of awe and photo 1 of awe are the same picture, which counts twice"]


def test_a_class_as_near_to_another_as_to_itself(run):
    model = fer_fast.load(run, "cpu")
    model.enrol("contempt", PHOTOS, faces="whole")
    with pytest.warns(UserWarning, match="scorn is as near to contempt .* will be taken for each other"):
        told = model.enrol("scorn", PHOTOS[::-1], faces="whole")
    assert told.nearest == "contempt"
    assert told.nearest_cosine == pytest.approx(1, abs=1e-6)


def test_a_threshold_that_rejects_the_class_itself(run):
    model = fer_fast.load(run, "cpu")
    spread = [picture(q) for q in ((255, 0, 128, 128), (0, 255, 128, 128), (128, 128, 255, 255), (255, 255, 128, 200))]
    with pytest.warns(UserWarning, match=".") as record:
        told = model.enrol("contempt", spread, faces="whole")
    rejects, near = warnings_of(record)
    mean = f"the mean cosine of its photos with each other ({told.left_out[1]:.2f})"
    assert rejects.startswith(f"contempt: {mean} does not exceed the threshold 0.6: most faces of it will be called")
    assert "will be taken for each other" in near


def test_a_long_enrolment_is_the_same_in_batches(run, monkeypatch):
    monkeypatch.setattr(enrolment, "BATCH", 2)
    model = fer_fast.load(run, "cpu")
    model.enrol("contempt", PHOTOS, faces="whole")
    expected, _ = direction(directions(model, PHOTOS))
    np.testing.assert_allclose(weight(model)[7].double().numpy(), expected, rtol=0, atol=HALF_A_BIT)
