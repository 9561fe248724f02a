"""Shared readers of tables: pixels as text, parquet and arrow; whole and broken."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer2013_trees import (
    FOLDERS,
    hugging_face,
    named_table,
    official_table,
    pixels,
    png,
    rows,
    write_arrow,
)
from fer_fast.data.tables import (
    Rows,
    TextPixels,
    label_names,
    parse_pixels,
    read_labelled,
    read_pixel_table,
    table_files,
)
from fer_fast.errors import InputError

IMAGES = [image for _, image in rows("train")]


# Pixels as text


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.sampled_from([" ", "  ", "\n", "\t ", "\r\n"]))
def test_numbers_are_read_as_they_stand(numbers, between):
    assert parse_pixels(between.join(map(str, numbers)).encode(), len(numbers)).tolist() == numbers
    assert parse_pixels(f" {between.join(map(str, numbers))}{between}".encode(), len(numbers)).tolist() == numbers


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("0123456789 -.,ex_+", max_size=5), min_size=1, max_size=4))
def test_what_python_takes_for_no_pixel_is_none(words):
    text = " ".join(words)
    good = all(word.isdigit() and len(word) <= 3 and int(word) <= 255 for word in text.split())
    count = len(text.split())
    if good:
        assert parse_pixels(text.encode(), count).tolist() == [int(word) for word in text.split()]
    else:
        with pytest.raises(InputError, match="no whole numbers from 0 to 255"):
            parse_pixels(text.encode(), count)


@pytest.mark.parametrize(
    "text", ["0256", "1000", "256", "99999999999999999999", "1.5", "-1", "+1", "1_0", "nan", "١", "\x00"]
)
def test_a_word_that_is_no_pixel(text):
    with pytest.raises(InputError, match="no whole numbers from 0 to 255"):
        parse_pixels(f"1 {text} 3".encode(), 3)


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_pixels(count):
    with pytest.raises(InputError, match=f"3 pixels; allowed: {count}"):
        parse_pixels(b"1 2 3", count)


def test_a_table_is_found_not_read(tmp_path):
    path = tmp_path / "a.csv"
    lines = [
        b'\xef\xbb\xbf"Emotion", pixels ,Usage\r\n',
        b"0,%b,Training\r\n" % pixels(IMAGES[0]).encode(),
        b"\r\n",
        b'"1" ,"%b","a ""quoted"", word"\r\n' % pixels(IMAGES[1]).encode(),
        b'2, "%b" , PublicTest\r\n' % pixels(IMAGES[2]).replace(" ", "\n", 3).encode(),
        b"3\r\n",
        b"4,no pixels,%b" % "Ärger".encode(),
    ]
    path.write_bytes(b"".join(lines))
    table = read_pixel_table(path)
    assert table.columns == {
        "emotion": ["0", "1", "2", "3", "4"],
        "usage": ["Training", 'a ""quoted"", word', "PublicTest", "", "Ärger"],
    }
    assert table.lines == [2, 4, 5, 9, 10]
    for i in range(3):
        assert np.array_equal(table.pictures.read(i, gray=True), IMAGES[i])
    assert np.array_equal(table.pictures.read(1, gray=False), np.dstack([IMAGES[1]] * 3))
    assert np.array_equal(table.pictures.take(np.array([2, 0])).read(0, gray=True), IMAGES[2])
    for i, message in ((3, "0 pixels"), (4, "no whole numbers")):
        with pytest.raises(InputError, match=message):
            table.pictures.read(i, gray=True)


def test_a_column_that_is_there_twice(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("emotion,emotion,pixels,pixels\n1,2,3 4,5\n6,7\n")
    table = read_pixel_table(path)
    assert table.columns == {"emotion": ["2", "7"]}
    assert table.pictures.spans[:, 1].tolist() == [3, 0]


def test_a_stamp_follows_file_and_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("pixels\n1 2\n3 4\n")
    pictures = read_pixel_table(path).pictures
    stamps = {tuple(pictures.take(np.array(chosen)).stamp()) for chosen in ([0], [1], [0, 1], [1, 0])}
    assert len(stamps) == 4
    other = tmp_path / "b.csv"
    other.write_bytes(path.read_bytes())
    both = [TextPixels([path, other, last], pictures.spans[[0, 1, 0]], 48) for last in (path, other)]
    assert tuple(both[0].stamp()) != tuple(both[1].stamp())
    before = tuple(pictures.stamp())
    assert tuple(pictures.take(np.arange(2)).stamp()) == before
    path.write_text("pixels\n1 2\n3 4\n\n")
    assert tuple(read_pixel_table(path).pictures.stamp()) != before


# Parquet and arrow


def forms(path, table):
    """The same table in every form: two parquet files, a stream and a file of arrow."""
    path.mkdir(parents=True)
    half = table.num_rows // 2
    for number, part in enumerate((table.slice(0, half), table.slice(half))):
        pq.write_table(part, path / f"train-{number:05d}-of-00002-0a1b.parquet", row_group_size=3)
    write_arrow(path / "stream" / "data-00000-of-00001.arrow", table, 5)
    write_arrow(path / "file" / "dataset.arrow", table, 5, stream=False)
    return table_files(path)


@pytest.mark.parametrize("word", ["train", "stream", "file"])
@pytest.mark.parametrize("table", [named_table, official_table])
def test_rows_are_the_same_in_every_form(word, table, tmp_path):
    files = forms(tmp_path / "t", table("train"))
    assert set(files) == {"train", "stream", "file"}
    read = read_labelled(files[word])
    assert read.classes == (tuple(sorted(FOLDERS)) if table is named_table else None)
    names = [FOLDERS[number] for number, _ in rows("train")]
    assert [read.classes[label] if read.classes else FOLDERS[label] for label in read.labels.tolist()] == names
    assert (len(read.pictures), sum(read.sizes), len(read.sizes)) == (21, 21, len(files[word]))
    assert read.names[-1] == f"{files[word][-1].parent.name}/{files[word][-1].name}:{read.sizes[-1] - 1}"
    shuffled = np.random.default_rng(0).permutation(21)
    taken = read.pictures.take(shuffled)
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda i: taken.read(i, gray=True), range(21)))
    assert all(np.array_equal(image, IMAGES[row]) for image, row in zip(images, shuffled, strict=True))
    assert tuple(taken.stamp()) != tuple(read.pictures.stamp())
    assert tuple(taken.take(np.argsort(shuffled)).stamp()) == tuple(read.pictures.stamp())


def test_only_row_groups_that_threads_read_are_in_memory(tmp_path):
    pq.write_table(official_table("train"), tmp_path / "train.parquet", row_group_size=3)
    pictures = Rows([tmp_path / "train.parquet"], "img_bytes")
    for i in range(21):
        pictures.read(i, gray=True)
        assert len(pictures._column._alive) == 1
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda i: pictures.read(i, gray=True), list(range(21)) * 20))
        assert len(pictures._column._alive) <= 4


def test_words_and_missing_labels(tmp_path):
    table = pa.table({"image": [png(IMAGES[0]), None, b"x"], "label": ["sad", None, "happy"]})
    pq.write_table(table, tmp_path / "train.parquet")
    read = read_labelled([tmp_path / "train.parquet"])
    assert (read.classes, read.labels.tolist()) == (("happy", "sad"), [1, -1, 0])
    for row, message in ((1, "the row holds no image"), (2, "no image of a kind")):
        with pytest.raises(InputError, match=message):
            read.pictures.read(row, gray=True)
    pq.write_table(pa.table({"image": [b"x", b"y"], "labels": pa.array([None, 3], pa.int8())}), tmp_path / "b.parquet")
    assert read_labelled([tmp_path / "b.parquet"]).labels.tolist() == [-1, 3]


def test_tables_of_something_else(tmp_path):
    for name, columns in {"a": {"label": [1]}, "b": {"image": [b"x"]}, "c": {"image": ["text"], "label": [1]}}.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        assert read_labelled([tmp_path / f"{name}.parquet"]) is None
    pq.write_table(pa.table({"image": [b"x"], "label": [1.5]}), tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"d\.parquet: the labels are of type double"):
        read_labelled([tmp_path / "d.parquet"])


def test_names_that_differ_between_files_are_refused(tmp_path):
    for name, order in (("a", ("sad", "happy")), ("b", ("happy", "sad"))):
        table = pa.table({"image": [b"x"], "label": [0]}).replace_schema_metadata(hugging_face(order))
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match="name their classes differently"):
        read_labelled([tmp_path / "a.parquet", tmp_path / "b.parquet"])


def features(names):
    return {"features": {"labels": {"_type": "ClassLabel", "names": names}}}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (json.dumps(features(["a", "b"])), ("a", "b")),
        (json.dumps(features([])), None),
        (json.dumps(features(["a", 1])), None),
        (json.dumps(features("ab")), None),
        (json.dumps({"features": {"labels": {"_type": "Value"}}}), None),
        (json.dumps({"features": [1]}), None),
        ("[1]", None),
        ("{", None),
        ("[" * 100_000, None),
        ("\xff", None),
    ],
)
def test_names_beside_an_arrow_file(text, names, tmp_path):
    path = write_arrow(tmp_path / "train" / "data-00000-of-00001.arrow", official_table("val"))
    assert label_names(path) is None
    (path.parent / "dataset_info.json").write_text(text, encoding="latin-1")
    assert label_names(path) == names


def test_the_usual_column_of_several_with_names(tmp_path):
    about = {name: {"_type": "ClassLabel", "names": [name]} for name in ("gender", "emotion", "age")}
    meta = {b"huggingface": json.dumps({"info": {"features": about}}).encode()}
    table = pa.table({name: [0] for name in about} | {"image": [b"x"]}).replace_schema_metadata(meta)
    pq.write_table(table, tmp_path / "a.parquet")
    assert label_names(tmp_path / "a.parquet") == ("emotion",)
    pq.write_table(table.select(["gender", "image"]), tmp_path / "b.parquet")  # the metadata tell of columns that left
    assert label_names(tmp_path / "b.parquet") == ("gender",)


def test_which_files_are_tables_of_which_part(tmp_path):
    for name in (
        "data/train-00001-of-00002.parquet",
        "data/train-00000-of-00002.parquet",
        "publicTest.PARQUET",
        "test/0001.parquet",
        "test/0000.parquet",
        "validation/data-00000-of-00001.arrow",
        "validation/cache-0a1b.arrow",
        "data/.hidden.parquet",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path.parent / "outside.parquet").touch()
    (tmp_path / "link.parquet").symlink_to(tmp_path.parent / "outside.parquet")
    found = {word: [str(file.relative_to(tmp_path)) for file in files] for word, files in table_files(tmp_path).items()}
    assert found == {
        "publictest": ["publicTest.PARQUET"],
        "test": ["test/0000.parquet", "test/0001.parquet"],
        "train": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
        "validation": ["validation/data-00000-of-00001.arrow"],
    }


def broken(path, content):
    """A table of pictures, damaged."""
    if path.suffix == ".arrow":
        write_arrow(path, named_table("train"))
    else:
        pq.write_table(named_table("train"), path, compression="none")
    good = path.read_bytes()
    middle = len(good) // 2
    damaged = {
        "nothing": b"",
        "noise": np.random.default_rng(0).bytes(5000),
        "half": good[:middle],
        "hole": good[: middle - 2000] + bytes(4000) + good[middle + 2000 :],
    }
    path.write_bytes(damaged[content])
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize("content", ["nothing", "noise", "half"])
def test_broken_tables_end_in_one_line(name, content, tmp_path):
    path = broken(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        read_labelled([path])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hole_in_pictures_leaves_the_others_whole(tmp_path):
    pictures = read_labelled([broken(tmp_path / "a.arrow", "hole")]).pictures
    damaged = []
    for i, image in enumerate(IMAGES):
        with suppress(InputError):
            if np.array_equal(pictures.read(i, gray=True), image):
                continue
        damaged.append(i)
    assert 1 <= len(damaged) <= 3  # 4 000 bytes of zeros over pictures of 2 400


@pytest.mark.parametrize("offsets", [[0, 1 << 30, 4], [0, -5, 4], [3, 2, 4]])
def test_places_outside_an_arrow_file_are_not_followed(offsets, tmp_path):
    buffers = [None, pa.py_buffer(np.array(offsets, np.int32)), pa.py_buffer(b"abcd")]
    images = pa.Array.from_buffers(pa.binary(), 2, buffers)
    path = tmp_path / "data.arrow"
    with pa.OSFile(str(path), "wb") as file:
        table = pa.RecordBatch.from_arrays([images, pa.array([0, 1])], ["image", "label"])
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_batch(table)
    with pytest.raises(InputError, match=r"data\.arrow: the column image cannot be read"):
        read_labelled([path]).pictures.read(0, gray=True)
