"""Shared readers of archives: WebDataset, a packed csv, YOLO; whole and broken."""

import gzip
import io
import tarfile

import numpy as np
import pytest

from fer2013_trees import (
    ALPHABETICAL,
    FOLDERS,
    add_member,
    rows,
    write_shards,
)
from fer_fast.data import archives
from fer_fast.data.archives import read_webdataset, read_yolo, unpacked
from fer_fast.errors import InputError

IMAGES = [image for _, image in rows("train")]


def test_a_webdataset(tmp_path):
    write_shards(tmp_path, ("train",), shards=12)
    samples = read_webdataset(tmp_path)
    order = [i for shard in range(12) for i in range(shard, 21, 12)]  # 2.tar before 10.tar
    assert samples.classes == ALPHABETICAL
    assert all(np.array_equal(samples.pictures.read(at, gray=True), IMAGES[i]) for at, i in enumerate(order))
    named = [sorted(FOLDERS)[label] for label in samples.labels.tolist()]
    assert named == [FOLDERS[rows("train")[i][0]] for i in order]
    assert (set(samples.words), samples.faults, samples.problems) == ({"train"}, [], [])
    assert read_webdataset(tmp_path / "train") is None


def test_a_key_twice_in_a_shard_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with tarfile.open(tmp_path / "train" / "0.tar", "w") as tar:
        add_member(tar, "a/s.jpg", b"x")
        add_member(tar, "b/s.jpg", b"y")
    with pytest.raises(InputError, match=r"0\.tar: s is in it twice"):
        read_webdataset(tmp_path)


def packed(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            add_member(tar, name, data)
    return path


def test_a_packed_file_is_unpacked_once(tmp_path, cache):
    archive = packed(tmp_path / "x.tar.gz", {"../../fer2013.csv": b"a,b\n", "other": b""})
    path = unpacked(archive, "fer2013.csv")
    assert (path.parent, path.read_bytes()) == (cache, b"a,b\n")
    before = path.stat().st_mtime_ns
    assert unpacked(archive, "fer2013.csv") == path
    assert path.stat().st_mtime_ns == before
    assert sorted(p.suffix for p in cache.iterdir()) in ([".csv"], [".csv", ".lock"])
    assert unpacked(archive, "absent.csv") is None


def test_hostile_archives(tmp_path, cache, monkeypatch):
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        link = tarfile.TarInfo("fer2013.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert unpacked(tmp_path / "link.tar", "fer2013.csv") is None
    good = packed(tmp_path / "x.tar.gz", {"fer2013.csv": np.random.default_rng(0).bytes(100_000)})
    (tmp_path / "half.tar.gz").write_bytes(good.read_bytes()[:50_000])
    (tmp_path / "no.tar.gz").write_bytes(b"\x1f\x8b no gzip")
    flipped = bytearray(good.read_bytes())
    flipped[30_000:30_100] = bytes(100)
    (tmp_path / "bad.tar.gz").write_bytes(flipped)
    for name in ("half.tar.gz", "no.tar.gz", "bad.tar.gz"):
        with pytest.raises(InputError, match=f"{name} cannot be unpacked") as caught:
            unpacked(tmp_path / name, "fer2013.csv")
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(archives, "_UNPACKED", 1 << 20)
    bomb = io.BytesIO()
    with tarfile.open(fileobj=bomb, mode="w") as tar:
        add_member(tar, "fer2013.csv", bytes(2 << 20))
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(bomb.getvalue()))
    with pytest.raises(InputError, match=r"bomb\.tar\.gz: fer2013\.csv has 0\.0 GB, too much for the cache"):
        unpacked(tmp_path / "bomb.tar.gz", "fer2013.csv")
    assert not list(cache.glob("*.csv"))


# YOLO


def write_yolo(root, place, names="names: [happy, sad]"):
    (root / "data.yaml").write_text(f"train: ../train/images\nval: /content/valid/images\nnc: 2\n{names}\n")
    for part in ("train", "valid"):
        for i in range(3):
            image, label = (root / place.format(part=part, kind=kind) for kind in ("images", "labels"))
            image.mkdir(parents=True, exist_ok=True)
            label.mkdir(parents=True, exist_ok=True)
            (image / f"x.rf.{i}.jpg").touch()
            (label / f"x.rf.{i}.txt").write_text(f"{i % 2} 0.5 0.5 1 1\n")


@pytest.mark.parametrize("place", ["{part}/{kind}", "{kind}/{part}"])
@pytest.mark.parametrize("names", ["names: [happy, sad]", "names: {0: happy, 1: sad}"])
def test_a_yolo_tree(place, names, tmp_path):
    write_yolo(tmp_path, place, names)
    yolo = read_yolo(tmp_path)
    assert (yolo.names, set(yolo.files), yolo.faults) == (("happy", "sad"), {"train", "valid"}, [])
    assert yolo.labels["train"].tolist() == [0, 1, 0]
    assert [file.name for file in yolo.files["valid"]] == ["x.rf.0.jpg", "x.rf.1.jpg", "x.rf.2.jpg"]


def test_labels_of_yolo_that_are_none(tmp_path):
    write_yolo(tmp_path, "{part}/{kind}")
    folder = tmp_path / "train" / "labels"
    (folder / "x.rf.0.txt").unlink()
    (folder / "x.rf.1.txt").write_text("0 .5 .5 1 1\n1 .5 .5 1 1\n")
    (folder / "x.rf.2.txt").write_text("2 .5 .5 1 1\n")
    (tmp_path / "valid" / "labels" / "x.rf.0.txt").write_text("\n")
    yolo = read_yolo(tmp_path)
    assert yolo.labels["train"].tolist() == [-1, -1, -1]
    assert yolo.labels["valid"].tolist() == [-1, 1, 0]
    assert yolo.faults == [
        f"{folder}/x.rf.1.txt: the classes 0, 1; allowed: one of 0 to 1",
        f"{folder}/x.rf.2.txt: the classes 2; allowed: one of 0 to 1",
    ]


@pytest.mark.parametrize("names", ["", "names: 3", "names: [1, 2]", "names: {0: a, 2: b}", "names: [", "names: []"])
def test_a_yolo_tree_without_names(names, tmp_path):
    assert read_yolo(tmp_path) is None
    write_yolo(tmp_path, "{part}/{kind}", names)
    with pytest.raises(InputError, match=r"data\.yaml"):
        read_yolo(tmp_path)


def test_yaml_that_makes_objects_is_refused(tmp_path):
    (tmp_path / "data.yaml").write_text("names: !!python/object/apply:os.system ['touch /tmp/never']")
    with pytest.raises(InputError, match=r"data\.yaml cannot be read"):
        read_yolo(tmp_path)
