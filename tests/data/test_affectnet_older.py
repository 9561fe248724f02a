"""AffectNet's older edition: lists with boxes and landmarks, wherever its pictures lie."""

import numpy as np
import pytest

from data_trees import by_name, draw, touch, write
from fer_fast.data import load_dataset
from fer_fast.data.labels import CLASSES
from fer_fast.data.sources.affectnet import read_affectnet7, read_affectnet8
from fer_fast.errors import InputError

POINTS = [f"{v}" for v in np.linspace(10, 200, 136).round(2)]
HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n"


def older(base, images, rows, *, header=False, spread=False, lists="Manually_Annotated_file_lists"):
    """The older edition: table -> name, box as written, number; empty pictures."""
    landmarks = ",".join(POINTS) if spread else ";".join(POINTS)
    for table, lines in rows.items():
        text = "".join(f"{name},{box},{landmarks},{number},-0.5,0.25\n" for name, box, number in lines)
        write(base / lists / table, (HEADER if header else "") + text)
        for name, _, _ in lines:
            touch(base / images / name)


ROWS = {
    "training.csv": [
        ("689/aa.jpg", "10,20,30,40", 1),
        ("689/bb.JPG", "NULL,NULL,NULL,NULL", 7),
        ("1/cc.png", "-1,5,30,40", 10),
        ("1/dd.bmp", "-3,5,30,40", 2),
        ("2/ee.tif", "1.5,2,3,4.5", 8),
        ("2/sp ace.jpg", "1,2,3,4", 9),
    ],
    "validation.csv": [("3/ff.jpg", "1,2,3,4", 0), ("3/gg.jpg", "0,0,0,4", 6)],
}
HOMES = [
    "Manually_Annotated_Images",
    "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated_compressed/Manually_Annotated_Images",
    "Manually_Annotated_compressed",
    "",
]


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("lists", ["", "Manually_Annotated_file_lists"])
def test_older_lists_in_every_form(tmp_path, header, spread, lists):
    older(tmp_path, HOMES[0], ROWS, header=header, spread=spread, lists=lists)
    listing = read_affectnet8(tmp_path)
    assert by_name(listing) == {
        f"{HOMES[0]}/{name}": cls
        for name, cls in {
            "689/aa.jpg": "happiness", "689/bb.JPG": "contempt", "1/dd.bmp": "sadness",
            "3/ff.jpg": "neutral", "3/gg.jpg": "anger",
        }.items()
    }  # fmt: skip
    assert (listing.sure, listing.faces, listing.faults, listing.problems) == (True, "box", [], [])
    assert listing.ignored == {f"pictures of {word}": 1 for word in ("none", "uncertain", "no face")}
    boxes = listing.parts["train"].boxes
    assert boxes[0].tolist() == [10, 20, 30, 40]
    assert np.isnan(boxes[1:]).all()
    assert listing.notes[:2] == [
        "2 pictures of training.csv have no box, or one that is none (NULL, negative)",
        "1 pictures of validation.csv have no box, or one that is none (NULL, negative)",
    ]
    assert set(listing.parts) == {"train", "test"}
    assert "validation part is the one that papers report on" in listing.notes[2]


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("parent", ["", "AffectNet", "data/affectnet"])
def test_older_pictures_under_every_parent(tmp_path, home, parent):
    older(tmp_path / parent, home, ROWS)
    assert len(by_name(read_affectnet8(tmp_path))) == 5


def test_seven_classes_drop_contempt_and_say_so(tmp_path):
    older(tmp_path, HOMES[0], ROWS)
    listing = read_affectnet7(tmp_path)
    assert listing.classes == CLASSES[:7]
    assert "contempt" not in by_name(listing).values()
    assert listing.ignored["pictures of contempt"] == 1


def test_older_faults_missing_and_repeated_rows(tmp_path):
    root = tmp_path / "root"
    older(root, HOMES[0], {"training.csv": [*ROWS["training.csv"][:2], ("5/gone.jpg", "1,2,3,4", 3)]})
    (root / HOMES[0] / "5/gone.jpg").unlink()
    touch(root / HOMES[0] / "689/q.jpg")
    # Pictures outside, and two inside by ways that no list takes.
    secret = touch(tmp_path / "secret/x.jpg")
    (root / HOMES[0] / "6").symlink_to(secret.parent)
    outside = ["../../secret/x.jpg", "689/../689/aa.jpg", "6/x.jpg", str(secret), f"{root}/{HOMES[0]}/689/q.jpg"]
    box = "1,2,3,4,0;0"
    more = [f"689/aa.jpg,{box},1,0,0", f"689/bb.JPG,{box},2,0,0", *(f"{name},{box},2,0,0" for name in outside)]
    more += [f"1/h.jpg,{box},eleven,0,0", f"1/i.jpg,{box},11,0,0", "short,1", f'"689/q.jpg",{box},"3",0,0']
    with (root / "Manually_Annotated_file_lists/training.csv").open("a") as table:
        table.write("\n".join(more))
    listing = read_affectnet8(root)
    assert [fault.split(": ")[1] for fault in listing.faults] == ["line 11", "line 12", "line 13"]
    assert listing.problems == [
        "1 rows give a picture another label than before, the first: 689/bb.JPG (contempt, then sadness); "
        "the first label is kept",
        "6 of 9 listed pictures are not there, the first: 5/gone.jpg",
    ]
    assert listing.ignored == {"rows that repeat another": 1}
    assert by_name(listing) == {
        f"{HOMES[0]}/{name}": cls
        for name, cls in {"689/aa.jpg": "happiness", "689/bb.JPG": "contempt", "689/q.jpg": "surprise"}.items()
    }


def test_older_lists_without_pictures_are_one_line(tmp_path):
    older(tmp_path, HOMES[0], ROWS)
    (tmp_path / HOMES[0]).rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"training.csv: none of its pictures is there; .* Manually_Annotated_Images/"):
        read_affectnet8(tmp_path)


def test_a_training_csv_of_something_else_is_no_affectnet(tmp_path):
    write(tmp_path / "training.csv", "left_eye_center_x,left_eye_center_y,Image\n1,2,3 4 5\n")
    assert read_affectnet8(tmp_path) is None


def test_what_a_machine_labelled_is_never_read(tmp_path):
    rows = {"automatically_annotated.csv": ROWS["training.csv"], "training.csv": ROWS["training.csv"]}
    older(tmp_path / "Automatically_Annotated", "Automatically_Annotated_Images", rows, lists="")
    with pytest.raises(InputError, match="labelled by a machine"):
        read_affectnet8(tmp_path)
    with pytest.raises(InputError, match="labelled by a machine"):
        read_affectnet8(tmp_path / "Automatically_Annotated")
    older(tmp_path, HOMES[0], ROWS)
    touch(tmp_path / "Automatically_Annotated_Images/1/x.jpg")
    listing = read_affectnet8(tmp_path)
    assert len(by_name(listing)) == 5
    assert listing.ignored["folders that were labelled by a machine (Automatically_Annotated)"] == 2


def test_older_boxes_and_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))
    older(tmp_path / "a", HOMES[0], ROWS)
    for seed, (name, _, _) in enumerate(row for rows in ROWS.values() for row in rows):
        draw(tmp_path / "a" / HOMES[0] / name, seed=seed)
    with pytest.warns(UserWarning, match="affectnet8 in"):
        dataset = load_dataset("affectnet8", tmp_path / "a", split="test")
    assert [dataset.classes[i] for i in dataset.labels] == ["neutral", "anger"]
    assert dataset.images.shape == (2, 3, 224, 224)
