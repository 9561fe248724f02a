"""Which dataset a folder holds: small copies of each, and claims of readers that agree or do not."""

from pathlib import Path

import pytest

from data_trees import draw, touch, write
from fer2013_trees import NUMBERED, USAGE, rows, write_csv, write_folders, write_shards, write_whole
from fer_fast.data.detect import find_dataset
from fer_fast.errors import InputError
from frames_on_disk import write_picture
from stub_datasets import listed, row, table_of

# Copies on disk


VOTED = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


def ferplus(root):
    write_whole(root)
    votes = [(USAGE[split], *(10 * (name == NUMBERED[i]) for name in VOTED)) for split in USAGE for i, _ in rows(split)]
    write_csv(root / "fer2013new.csv", ("Usage", *VOTED), votes)


def rafdb(root):
    names = [f"{part}_{i:0{digits}}" for part, digits in (("train", 5), ("test", 4)) for i in range(1, 8)]
    lines = [f"{name}.jpg {i % 7 + 1}\n" for i, name in enumerate(names)]
    write(root / "basic/EmoLabel/list_patition_label.txt", "".join(lines))
    for i, name in enumerate(names):
        draw(root / f"basic/Image/aligned/{name}_aligned.jpg", seed=i)


def affectnet(root, numbers=range(8)):
    for part in ("training", "validation"):
        lines = [f"1/{part}{n}.jpg,1,1,20,20,1;2,{n},0.1,0.2\n" for n in numbers]
        write(root / f"Manually_Annotated_file_lists/{part}.csv", "".join(lines))
        for n in numbers:
            draw(root / f"Manually_Annotated_Images/1/{part}{n}.jpg", seed=n)


def ckplus(root):
    for number in range(1, 8):
        name = f"S{number:03}/001"
        for frame in range(1, 5):
            write_picture(root / f"cohn-kanade-images/{name}/{name.replace('/', '_')}_{frame:08}.png", 20 * number)
        write(root / f"Emotion/{name}/{name.replace('/', '_')}_00000004_emotion.txt", f"   {number:.7e}\n")


def oulu_casia(root):
    for subject in ("P001", "P002"):
        for name in ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise"):
            for frame in range(4):
                write_picture(root / f"B_OriginalImg/VL/Strong/{subject}/{name}/{frame:03}.jpeg", 40 * frame)


def mmi(root):
    for number in range(1, 7):
        write(root / f"Sessions/{number}/S001-{number:03}.xml", f'<r><Metatag Name="Emotion" Value="{number}"/></r>')
        write(root / f"Sessions/{number}/session.xml", '<session><track trackId="1" view="0" type="Video"/></session>')
        touch(root / f"Sessions/{number}/S001-{number:03}.avi")


def expw(root):
    write(root / "label/label.lst", "".join(f"photo{n}.jpg 0 2 2 40 40 50.0 {n}\n" for n in range(7)))
    for n in range(7):
        draw(root / f"image/origin/photo{n}.jpg", seed=n)


COPIES = {
    "csv": ("fer2013", write_whole),
    "prefixes": ("fer2013", lambda root: write_folders(root, {"train": "train", "val": "test", "test": "test"})),
    "votes": ("ferplus", ferplus),
    "raf-db": ("rafdb", rafdb),
    "eight": ("affectnet8", affectnet),
    "seven": ("affectnet7", lambda root: affectnet(root, range(7))),
    "ck+": ("ckplus", ckplus),
    "oulu-casia": ("oulu-casia", oulu_casia),
    "mmi": ("mmi", mmi),
    "expw": ("expw", expw),
    "shards": ("fer2013", write_shards),
}


@pytest.mark.parametrize("around", ["", "somewhere"])
@pytest.mark.parametrize("copy", COPIES)
def test_a_small_copy_is_told_by_its_structure(copy, around, tmp_path):
    name, write_copy = COPIES[copy]
    write_copy(tmp_path / around)
    info, listing = find_dataset(tmp_path)
    assert info.name == name
    assert all(counts.keys() == set(info.classes) for counts in listing.counts().values())


def test_class_folders_alone_are_not_told(tmp_path):
    write_folders(tmp_path, {"train": "train", "test": "test"}, names="{number}.png")
    with pytest.raises(InputError, match=r"can be any of .*fer2013.*; say which with --dataset NAME"):
        find_dataset(tmp_path)
    assert find_dataset(tmp_path, dataset="folder")[0].name == "folder"


# Claims


def claims(name, sure=True, counts=(4, 4), pictures=None, published=(4, 4), **about):
    """A row whose reader finds so many pictures of classes a and b, of these names."""

    def read(root, order=None):
        files = [Path(picture) for picture in pictures or map(str, range(sum(counts)))]
        listing = listed(files, labels=[0] * counts[0] + [1] * counts[1])
        listing.sure = sure
        return listing

    sizes = {"train": dict(zip("ab", published, strict=True))} if published else {}
    return row(read, name, published=sizes, **about)


def refuses(name, message="numbers without names"):
    def read(root, order=None):
        raise InputError(message)

    return row(read, name)


def passes(name):
    return row(lambda root: None, name)


OWN = claims("folder", sure=False, published=None, classes=())


@pytest.mark.parametrize(
    ("table", "answer"),
    [
        ([claims("x"), passes("y"), OWN], "x"),
        ([claims("x", counts=(1, 1)), claims("y", sure=False), OWN], "x"),
        ([claims("x", sure=False), claims("y", sure=False, counts=(9, 1)), OWN], "x"),
        ([passes("x"), OWN], "folder"),
        ([passes("x"), claims("y", sure=False, counts=(1, 9))], "y"),
        ([refuses("x"), claims("y")], "y"),
        ([refuses("x"), claims("y", sure=False)], "y"),
        # A dataset that adds to another; editions of one copy: fewest pictures left out, then fewest classes empty.
        ([claims("x"), claims("y", counts=(1, 1), extends="x")], "y"),
        ([claims("x", counts=(2, 0)), claims("y", counts=(2, 1))], "y"),
        ([claims("x", classes="abc"), claims("y")], "y"),
        ([claims("x", sure=False, counts=(40, 38), published=(40, 40)), claims("y", sure=False, counts=(1, 1))], "x"),
    ],
)
def test_who_claims_a_folder(table, answer, tmp_path):
    with table_of(*table):
        assert find_dataset(tmp_path)[0].name == answer


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([passes("x"), passes("y")], ["none of the data sets", "x, y"]),
        ([claims("x", pictures="abcdefgh"), claims("y")], ["any of x, y; say which with --dataset NAME"]),
        ([claims("x", sure=False, counts=(1, 3)), OWN], ["any of x, folder; say which with --dataset NAME"]),
        ([claims("x", sure=False, counts=(40, 30), published=(40, 40)), OWN], ["any of x, folder;"]),
        ([refuses("x", "say --order"), OWN], ["any of folder, x; say which with --dataset NAME"]),
        ([refuses("x"), passes("y")], ["numbers without names"]),
    ],
)
def test_a_folder_that_cannot_be_told(table, words, tmp_path):
    with table_of(*table), pytest.raises(InputError) as caught:
        find_dataset(tmp_path)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_the_user_decides(tmp_path):
    with table_of(claims("x"), claims("y", pictures="abcdefgh"), passes("z")):
        assert find_dataset(tmp_path, dataset="y")[0].name == "y"
        with pytest.raises(InputError, match="holds no z"):
            find_dataset(tmp_path, dataset="z")
        with pytest.raises(InputError, match="'w' is not one of x, y, z"):
            find_dataset(tmp_path, dataset="w")
        with pytest.raises(InputError, match="does not exist"):
            find_dataset(tmp_path / "missing")


def test_the_order_reaches_the_readers_that_have_one(tmp_path):
    def read(root, order=None):
        if order is None:
            raise InputError("numbers without names; say --order")
        if order not in ("official", "swapped"):
            raise InputError("order is none of official, swapped")
        return listed([Path("x"), Path("y"), Path("z")], labels=[0, 0, 1] if order == "official" else [1, 1, 0])

    with table_of(row(read), passes("other")):
        with pytest.raises(InputError, match="numbers without names"):
            find_dataset(tmp_path)
        assert find_dataset(tmp_path, order="official")[1].counts() == {"train": {"a": 2, "b": 1}}
        assert find_dataset(tmp_path, dataset="stub", order="swapped")[1].counts() == {"train": {"a": 1, "b": 2}}
