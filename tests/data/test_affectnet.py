"""AffectNet in both official editions and the forms other people keep it in; sizes are 0.3 % of the published."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest

from data_trees import draw, scaled, shuffled, touch, write
from fer2013_trees import named_table, write_arrow
from fer_fast.data import load_dataset
from fer_fast.data.labels import CLASSES
from fer_fast.data.npy import CORRUPT, MISSING, read_scalars
from fer_fast.data.sources import affectnet
from fer_fast.data.sources.affectnet import ORDERS, PUBLISHED, PUBLISHED_7, read_affectnet7, read_affectnet8
from fer_fast.errors import InputError

SIZES = scaled(PUBLISHED, 0.003)
SIZES_7 = {part: {name: sizes[name] for name in CLASSES[:7]} for part, sizes in SIZES.items()}
SEVEN, ALPHABETICAL, ALPHABETICAL_7 = ORDERS[1:]
DROPPED = {8: "none", 9: "uncertain", 10: "no face"}
EIGHT_AND_DROPPED = dict(enumerate(CLASSES)) | DROPPED


@pytest.fixture
def small(monkeypatch):
    """The published sizes are 0.3 % of what they are."""
    sizes = [*affectnet.editions(SIZES), *affectnet.editions(SIZES_7)]
    monkeypatch.setattr(affectnet, "_SIZES", sizes)


def by_name(listing):
    return {
        name: listing.classes[label]
        for part in listing.parts.values()
        for name, label in zip(part.names, part.labels.tolist(), strict=True)
    }


def quiet(listing):
    return not (listing.problems or listing.ignored or listing.faults)


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
    assert listing.ignored == {f"pictures of {word}": 1 for word in DROPPED.values()}
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


def newer(base, sizes, order=EIGHT_AND_DROPPED, *, val="val_set", kind=str, annotations=True, start=0):
    """The newer edition; gives path -> class."""
    numbers = {name: number for number, name in order.items()}
    classes = {}
    for part, word in (("train", "train_set"), ("test", val)):
        folder = base / word
        for inner in ("images", "annotations") if annotations else ("images",):
            (folder / inner).mkdir(parents=True)
        rows = []
        for i, name in enumerate(shuffled(sizes.get(part, {}))):
            number = start + 3 * i  # numbers have gaps
            classes[f"{word}/images/{number}.jpg"] = name
            (folder / f"images/{number}.jpg").touch()
            rows.append(f"{number}.jpg {numbers[name]}")
            if annotations:
                np.save(folder / f"annotations/{number}_exp.npy", np.array(kind(numbers[name])))
        if not annotations:
            write(folder / f"{word.removesuffix('_set')}_annotations_7class.txt", "\n".join(rows))
    return classes


@pytest.mark.parametrize("kind", [str, int, float, np.int32, np.uint8, np.bytes_], ids=lambda kind: kind.__name__)
def test_newer_annotations_of_every_type(tmp_path, small, kind):
    kind_of = (lambda n: np.bytes_(str(n))) if kind is np.bytes_ else kind
    classes = newer(tmp_path, SIZES, kind=kind_of)
    listing = read_affectnet8(tmp_path)
    assert by_name(listing) == classes
    assert (listing.sure, quiet(listing), listing.faces) == (True, True, "whole")
    assert set(listing.parts) == {"train", "test"}


@pytest.mark.parametrize("val", ["val_set", "valid_set", "eval_set"])
@pytest.mark.parametrize("parent", ["", "AffectNet", "x/y"])
def test_newer_under_every_name(tmp_path, small, val, parent):
    classes = newer(tmp_path / parent, SIZES, val=val)
    prefix = f"{parent}/" if parent else ""
    assert by_name(read_affectnet8(tmp_path)) == {f"{prefix}{path}": name for path, name in classes.items()}


def test_newer_drops_what_is_no_expression_and_contempt_of_seven(tmp_path, small):
    sizes = {"train": SIZES["train"] | {"none": 30, "uncertain": 4, "no face": 7}, "test": SIZES["test"]}
    newer(tmp_path, sizes)
    listing = read_affectnet8(tmp_path)
    assert listing.counts()["train"] == SIZES["train"]
    assert listing.ignored == {"pictures of none": 30, "pictures of uncertain": 4, "pictures of no face": 7}
    listing = read_affectnet7(tmp_path)
    assert listing.counts() == SIZES_7
    assert listing.ignored["pictures of contempt"] == SIZES["train"]["contempt"] + SIZES["test"]["contempt"]


def test_the_tree_alone_does_not_prove_affectnet(tmp_path, small):
    sizes = {"train": dict.fromkeys(CLASSES, 60), "test": dict.fromkeys(CLASSES, 2)}
    classes = newer(tmp_path, sizes)
    with pytest.raises(InputError, match=r"--data.order.*affectnet \(0 neutral"):
        read_affectnet8(tmp_path)
    listing = read_affectnet8(tmp_path, order="affectnet")
    assert by_name(listing) == classes
    assert not listing.sure


def test_the_validation_part_alone_tells_no_order(tmp_path, small):
    newer(tmp_path, {"test": SIZES["test"]})
    with pytest.raises(InputError, match=r"affectnet .*alphabetical"):
        read_affectnet8(tmp_path)


def test_other_classes_in_the_same_form_are_refused(tmp_path, small):
    newer(tmp_path, {"train": dict.fromkeys(CLASSES[:3], 9)})
    with pytest.raises(InputError, match="form of AffectNet's newer edition, but other classes: 0, 1, 2"):
        read_affectnet8(tmp_path)


@pytest.mark.parametrize("order", [SEVEN, ALPHABETICAL_7], ids=lambda order: order.name)
@pytest.mark.parametrize("val", ["val_set", "valid_set"])
def test_lists_of_seven_classes(tmp_path, small, order, val):
    classes = newer(tmp_path, SIZES_7, order.classes, annotations=False, val=val)
    listing = read_affectnet7(tmp_path)
    assert (by_name(listing), quiet(listing)) == (classes, True)


def test_lists_tell_missing_unlisted_and_broken_rows(tmp_path, small):
    classes = newer(tmp_path, SIZES_7, SEVEN.classes, annotations=False)
    (tmp_path / "train_set/images/0.jpg").unlink()
    touch(tmp_path / "train_set/images/new.jpg")
    table = tmp_path / "train_set/train_annotations_7class.txt"
    write(table, f"{table.read_text()}\nalone\n3.jpg {table.read_text().splitlines()[1][-1]}")
    listing = read_affectnet7(tmp_path)
    assert len(by_name(listing)) == len(classes) - 1
    assert [line.partition(",")[0] for line in listing.problems] == [
        f"1 of {sum(SIZES_7['train'].values())} listed pictures are not there"
    ]
    assert listing.ignored == {"rows that repeat another": 1, "pictures that are not on the list": 1}
    assert len(listing.faults) == 1


def test_the_newer_edition_lacks_one_validation_picture(tmp_path, monkeypatch):
    sizes = {"train": SIZES["train"], "test": PUBLISHED["test"] | {"contempt": 499}}
    monkeypatch.setattr(affectnet, "_SIZES", affectnet.editions(sizes))
    newer(tmp_path, sizes)
    for read, published in ((read_affectnet8, PUBLISHED), (read_affectnet7, PUBLISHED_7)):
        listing = read(tmp_path)
        listing.compare({"test": published["test"]})
        assert listing.problems == []
    (tmp_path / "val_set/images/0.jpg").unlink()
    listing = read_affectnet8(tmp_path)
    listing.compare({"test": PUBLISHED["test"]})
    assert len(listing.problems) == 1


def test_pictures_without_annotation_and_corrupt_ones(tmp_path, small):
    newer(tmp_path, SIZES)
    folder = tmp_path / "train_set/annotations"
    (folder / "0_exp.npy").unlink()
    np.save(folder / "3_exp.npy", np.array({"a": 1}, dtype=object), allow_pickle=True)
    listing = read_affectnet8(tmp_path)
    assert listing.problems == ["1 pictures of train_set have no annotation and are left out"]
    assert listing.faults == [f"{folder}: the expression of 3.jpg is no number"]


def npy(array, **how):
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def test_scalars_are_read_without_unpickling(tmp_path):
    text = npy(np.array("6"))
    contents = {
        "text": npy(np.array("10")),
        "int": npy(np.array(3)),
        "one": npy(np.array([4])),
        "big": npy(np.array(5, ">i4")),
        "version 2": text[:6] + b"\x02\x00" + text[8:10] + b"\x00\x00" + text[10:],
        "object": npy(np.array(3, dtype=object), allow_pickle=True),
        "two": npy(np.array([1, 2])),
        "bomb": npy(np.array(7)).replace(b"()", b"(99999999999,)"),
        "word": npy(np.array("happy")),
        "negative": npy(np.array(-4)),
        "half": npy(np.array(1.5)),
        "empty": b"",
        "short": npy(np.array(7))[:-4],
        "zip": b"PK\x03\x04" + b"0" * 50,
        "record": npy(np.zeros((), [("a", "i4")])),
        "nothing": npy(np.zeros(0)),
        "long": npy(np.array("1" * 600)),
    }
    paths = []
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        paths.append(str(tmp_path / name))
    (tmp_path / "folder").mkdir()
    numbers = read_scalars([*paths, str(tmp_path / "folder"), str(tmp_path / "absent")])
    assert numbers[:5].tolist() == [10, 3, 4, 5, 6]
    assert numbers[5:-1].tolist() == [CORRUPT] * (len(contents) - 4)
    assert numbers[-1] == MISSING
    assert read_scalars([]).shape == (0,)


@pytest.mark.parametrize("prefix", ["", "/home/someone/AffectNet/", "AffectNet\\"])
@pytest.mark.parametrize("order", [ORDERS[0], ALPHABETICAL], ids=lambda order: order.name)
def test_affectnet_csv(tmp_path, small, order, prefix):
    numbers = {name: number for number, name in order.classes.items()}
    lines, classes = [], {}
    for part, phase in (("train", "train"), ("test", "valid")):
        for i, name in enumerate(shuffled(SIZES[part])):
            path = f"{phase}/{i % 3}/{i}.jpg"
            touch(tmp_path / path)
            classes[path] = name
            written = (prefix + path).replace("/", "\\") if "\\" in prefix else prefix + path
            lines.append(f"{phase},{written},{numbers[name]}")
    write(tmp_path / "affectnet.csv", "phase,img_path,label\n" + "\n".join(lines))
    listing = read_affectnet8(tmp_path)
    assert (by_name(listing), listing.sure, quiet(listing)) == (classes, True, True)
    (tmp_path / "train/0/0.jpg").unlink()
    write(tmp_path / "affectnet.csv", "phase,img_path,label\n" + "\n".join([*lines, "elsewhere,a.jpg,1", lines[1]]))
    listing = read_affectnet8(tmp_path)
    assert (len(listing.problems), len(listing.faults)) == (1, 1)
    assert listing.ignored == {"rows that repeat another": 1}


def test_seven_emotions_by_name(tmp_path, small):
    for part, word in (("train", "train"), ("test", "val")):
        for name, count in SIZES_7[part].items():
            for i in range(count):
                touch(tmp_path / "seven_emotions" / word / name.title() / f"{i}.jpg")
    listing = read_affectnet7(tmp_path)
    assert (listing.counts(), listing.sure, quiet(listing)) == (SIZES_7, True, True)
    assert len(listing.notes) == 1


def test_folders_of_few_pictures_prove_nothing(tmp_path):
    for name in CLASSES[:7]:
        touch(tmp_path / "train" / name / "1.jpg")
    assert not read_affectnet7(tmp_path).sure


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
def test_numbered_folders(tmp_path, small, order):
    sizes = SIZES if len(order.classes) == 8 else SIZES_7
    read = read_affectnet8 if len(order.classes) == 8 else read_affectnet7
    for part, counts in sizes.items():
        for number, name in order.classes.items():
            for i in range(counts[name]):
                touch(tmp_path / part / str(number) / f"{i}.jpg")
        for number in (8, 9, 10):
            touch(tmp_path / part / str(number) / "x.jpg")
    listing = read(tmp_path)
    assert listing.counts() == sizes
    assert listing.ignored == {f"pictures of {word}": 2 for word in DROPPED.values()}


def test_labels_csv_outweighs_the_folders(tmp_path):
    lines = []
    for i, name in enumerate(shuffled(dict.fromkeys(CLASSES, 6))):
        touch(tmp_path / name.title() / f"image{i:07d}.png")
        label = "fear" if i == 5 else name
        lines.append(f"{i},{name.title()}/image{i:07d}.png,{label},0.{i:02d}")
    write(tmp_path / "labels.csv", ",pth,label,relFCs\n" + "\n".join([*lines, "99,Fear/absent.png,fear,0.1"]))
    listing = read_affectnet8(tmp_path)
    differ, missing = listing.problems
    assert differ.startswith("1 of 48 pictures lie in the folder of another class than labels.csv says")
    assert "image0000005.png" in differ
    assert missing.startswith("1 of 49 listed pictures are not there, the first: Fear/absent.png")
    assert (list(listing.parts), listing.sure) == (["all"], True)
    assert listing.counts()["all"]["fear"] in (6, 7)
    assert sum(listing.counts()["all"].values()) == 48


def test_another_labels_csv_is_left_aside(tmp_path):
    for name in CLASSES:
        touch(tmp_path / name / "1.jpg")
    write(tmp_path / "labels.csv", "file,what\na,b\n")
    listing = read_affectnet8(tmp_path)
    assert not listing.sure
    assert listing.ignored == {"tables that are not pth, label": 1}


def test_yolo_in_alphabetical_order(tmp_path):
    names = sorted(name.title() for name in CLASSES)
    write(tmp_path / "data.yaml", f"train: ../train/images\nnc: 8\nnames: {json.dumps(names)}\n")
    for part, count in (("train", 3), ("valid", 2), ("test", 1)):
        for number in range(8):
            for i in range(count):
                touch(tmp_path / part / "images" / f"{names[number]}{i}.jpg")
                write(tmp_path / part / "labels" / f"{names[number]}{i}.txt", f"{number} 0.5 0.5 1 1\n")
    touch(tmp_path / "train/images/unlabelled.jpg")
    listing = read_affectnet8(tmp_path)
    assert {part: set(counts.values()) for part, counts in listing.counts().items()} == {
        "train": {3}, "val": {2}, "test": {1},
    }  # fmt: skip
    assert all(cls in name.lower() for name, cls in by_name(listing).items())
    assert (listing.unlabelled, listing.sure) == (1, False)
    write(tmp_path / "data.yaml", 'names: ["cat", "dog"]\n')
    assert read_affectnet8(tmp_path) is None


@pytest.mark.parametrize(
    "names", [CLASSES, sorted(CLASSES), CLASSES[::-1]], ids=["official", "alphabetical", "backwards"]
)
def test_arrow_folders_with_names_in_any_order(tmp_path, names):
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema({"image": image, "label": pa.int64()}, metadata)
    for part, count in (("train", 2), ("test", 1)):
        labels = [number for number in range(8) for _ in range(count)] + [None]
        rows = [{"image": {"bytes": b"x", "path": None}, "label": label} for label in labels]
        folder = tmp_path / part
        folder.mkdir()
        with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as out:
            out.write_table(pa.Table.from_pylist(rows, schema))
        write(folder / "dataset_info.json", json.dumps({"features": features}))
    listing = read_affectnet8(tmp_path)
    assert {part: set(counts.values()) for part, counts in listing.counts().items()} == {"train": {2}, "test": {1}}
    first = [listing.classes[label] for label in listing.parts["test"].labels]
    assert first == list(names)
    assert listing.ignored == {"pictures of no label": 2}


def test_a_number_without_a_name_is_no_class(tmp_path):
    for part in ("train", "test"):
        table = named_table(part)
        labels = [*table["label"].to_pylist()[1:], 77]
        table = table.set_column(1, "label", pa.array(labels)).replace_schema_metadata(table.schema.metadata)
        write_arrow(tmp_path / part / "data-00000-of-00001.arrow", table)
    assert read_affectnet8(tmp_path) is None
    assert read_affectnet7(tmp_path) is None


def test_other_folders_hold_nothing(tmp_path):
    assert read_affectnet8(tmp_path) is None
    touch(tmp_path / "train/cat/1.jpg")
    assert read_affectnet8(tmp_path) is None
    assert read_affectnet7(touch(tmp_path / "x.csv")) is None
