"""AffectNet's newer edition and the forms other people keep the dataset in; sizes are 0.3 % of the published."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest

from data_trees import by_name, scaled, shuffled, touch, write
from fer2013_trees import named_table, write_arrow
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


def quiet(listing):
    return not (listing.problems or listing.ignored or listing.faults)


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
