"""The cache of decoded pictures: what it is keyed by, its order and memory, and pictures that cannot be read."""

import errno
import os
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from drawn_pictures import ABOUT, HOW, Drawn, built, folders, part_of
from fer_fast.data import cache as module
from fer_fast.data import load_dataset
from fer_fast.data.cache import GOOD, NO_FACE, UNREADABLE, store
from fer_fast.data.pictures import Files
from fer_fast.data.prepare import Preparation
from fer_fast.errors import InputError
from stub_datasets import listed, photograph, put, row, table_of


@pytest.fixture
def files(tmp_path):
    return [put(tmp_path / "pictures" / f"{i}.png", photograph(i, size=16)) for i in range(6)]


# Decoded once, under a key


def test_pictures_are_decoded_once(cache):
    first = built(one := Drawn(10))
    second = built(other := Drawn(10))
    assert (len(one.decoded), len(other.decoded)) == (10, 0)
    for name in ("pixels", "marks", "hashes", "states"):
        assert (getattr(first, name) == getattr(second, name)).all()
    assert len(folders(cache)) == 1


def test_it_keeps_pixels_marks_and_states(files):
    kept = store(listed(files).parts["train"], HOW, ABOUT)
    assert (kept.pixels.numpy() == np.stack([photograph(i, size=16) for i in range(6)])).all()
    assert len({bytes(mark) for mark in kept.marks.numpy()}) == 6
    assert (kept.states == GOOD).all()
    assert kept.faults == {}


def test_progress_counts_to_the_end(small_chunks):
    said = []
    store(part_of(Drawn(10)), HOW, ABOUT, lambda done, total: said.append((done, total)))
    assert said == [(4, 10), (8, 10), (10, 10)]
    said.clear()
    store(part_of(Drawn(10)), HOW, ABOUT, lambda done, total: said.append((done, total)))
    assert said == []


@pytest.mark.parametrize(
    "how",
    [
        Preparation(size=17, channels=1),
        Preparation(size=16, channels=3),
        Preparation(size=16, channels=1, faces="box"),
        Preparation(size=16, channels=1, no_face="skip"),
    ],
    ids=str,
)
def test_another_preparation_is_another_cache(how, cache):
    built(Drawn(3))
    built(again := Drawn(3), how)
    assert len(again.decoded) == 3
    built(back := Drawn(3))
    assert back.decoded == []
    assert len(folders(cache)) == 2


def test_a_relative_folder_is_the_same_from_everywhere(files, cache, monkeypatch):
    place = files[0].parent
    for here, names in ((place, files), (place.parent, [f"pictures/{f.name}" for f in files]), (place, ["./0.png"])):
        monkeypatch.chdir(here)
        store(part_of(Files(names)), HOW, ABOUT)
    assert len(folders(cache)) == 2
    monkeypatch.chdir(place.parent)
    store(part_of(Files([files[0]])), HOW, ABOUT)
    assert len(folders(cache)) == 2


def test_other_boxes_are_another_cache_where_they_are_cut():
    boxes, how = np.array([[0, 0, 8, 8]] * 3, np.float32), replace(HOW, faces="box")
    for columns, expected in (({"boxes": boxes}, 3), ({"boxes": boxes}, 0), ({"boxes": boxes + 1}, 3)):
        built(pictures := Drawn(3), how, **columns)
        assert len(pictures.decoded) == expected
    built(Drawn(3))
    built(pictures := Drawn(3), boxes=boxes)  # whole pictures have nothing to do with boxes
    assert pictures.decoded == []


def _touch(path):
    os.utime(path, ns=(1, 1))


def _grow(path):
    stamp = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@pytest.mark.parametrize("change", [_touch, _grow, lambda path: path.rename(path.with_name("z.png"))])
def test_changed_files_are_decoded_again(change, files, cache):
    def build():
        store(listed(sorted(files[0].parent.iterdir())).parts["train"], HOW, ABOUT)

    build()
    build()
    assert len(folders(cache)) == 1
    change(files[2])
    build()
    assert len(folders(cache)) == 2


def test_a_picture_that_is_gone_is_named(files):
    listing = listed(files)
    files[3].unlink()
    with pytest.raises(InputError, match=r"3\.png cannot be read any more: No such file"):
        store(listing.parts["train"], HOW, ABOUT)


# Order, memory


def test_slow_pictures_do_not_change_the_order(small_chunks):
    kept = built(Drawn(40, lambda index: time.sleep(0.05 if index in (3, 17, 18) else 0)))
    assert kept.pixels[:, 0, 0, 0].tolist() == list(range(40))


def test_large_pictures_do_not_pile_up_in_memory(monkeypatch):
    """The first picture is slow, so that the others could be decoded long before their turn."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 4 * 256 * 256)
    pictures = Drawn(400, lambda index: time.sleep(0.5 if index == 0 else 0), side=256)
    tracemalloc.start()
    try:
        kept = built(pictures, Preparation(size=256, channels=1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.pixels.numel() == 400 * 256 * 256
    assert peak < kept.pixels.numel() / 8  # of 100 chunks; a few are under way


# What cannot be read


def test_unreadable_pictures_are_states_and_faults(files):
    files[1].write_bytes(b"no picture")
    files[4].write_bytes(b"")
    kept = store(listed(files).parts["train"], HOW, ABOUT)
    assert kept.states.tolist() == [GOOD, UNREADABLE, GOOD, GOOD, UNREADABLE, GOOD]
    assert set(kept.faults) == {1, 4}
    assert kept.faults[4] == "the file is empty"
    assert not kept.marks[[1, 4]].any()
    assert not kept.pixels[[1, 4]].any()
    assert store(listed(files).parts["train"], HOW, ABOUT).faults == kept.faults


def test_a_picture_without_its_box_is_kept_whole():
    boxes = np.array([[0, 0, 8, 8], [np.nan] * 4], np.float32)
    assert built(Drawn(2), replace(HOW, faces="box"), boxes=boxes).states.tolist() == [GOOD, NO_FACE]


def test_what_the_disk_refused_is_tried_again(cache):
    """Unlike a broken picture: a permission is given, a share comes back, without a change of the file."""

    def refuse(index):
        if index == 2:
            raise PermissionError(errno.EACCES, "Permission denied", "2.png")

    assert built(Drawn(4, refuse)).faults == {2: "Permission denied"}
    assert built(again := Drawn(4, refuse)).faults == {2: "Permission denied"}
    assert again.decoded == [2]  # and no more, while nothing changed
    assert built(Drawn(4)).faults == {}
    built(kept := Drawn(4))
    assert kept.decoded == []


def test_unreadable_pictures_are_an_error_or_left_out(files, tmp_path):
    files[1].write_bytes(b"no picture")
    with table_of(row(lambda root: listed(files, part="test", labels=[0, 1] * 3))):
        with pytest.raises(
            InputError, match=r"1 of 6 test images cannot be read, the first: 1\.png: .*unreadable skip"
        ):
            load_dataset("stub", tmp_path, split="test")
        dataset = load_dataset("stub", tmp_path, split="test", unreadable="skip")
    assert dataset.names == tuple(f"{i}.png" for i in (0, 2, 3, 4, 5))
    assert "1 images that cannot be read are left out" in dataset.notes[0]
