"""The cache of decoded pictures: what it is keyed by, what it survives, and what it says when it cannot be written."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from fer_fast.data import cache as module
from fer_fast.data import load_dataset
from fer_fast.data.cache import GOOD, NO_FACE, UNREADABLE, store
from fer_fast.data.listing import Part
from fer_fast.data.pictures import Files, Pictures
from fer_fast.data.prepare import Preparation
from fer_fast.errors import InputError
from stub_datasets import listed, photograph, put, row, table_of

HOW = Preparation(size=16, channels=1)
ABOUT = {"dataset": "stub", "part": "train", "root": "/somewhere", "licence": "for a test"}


class Drawn(Pictures):
    """Pictures whose gray tells their number, each decoded by `decode` first; every decode is counted."""

    def __init__(self, count, decode=lambda index: None, side=16):
        self.count, self.decode, self.side = count, decode, side
        self.decoded = []

    def __len__(self):
        return self.count

    def read(self, index, *, gray):
        self.decoded.append(index)
        self.decode(index)
        return np.full((self.side, self.side), index % 256, np.uint8)

    def stamp(self):
        yield f"{self.count}"

    def take(self, rows):
        raise NotImplementedError


def part_of(pictures, **columns):
    return Part(pictures, np.zeros(len(pictures), np.int64), tuple(map(str, range(len(pictures)))), **columns)


def built(pictures, how=HOW, **columns):
    return store(part_of(pictures, **columns), how, ABOUT)


@pytest.fixture
def small_chunks(monkeypatch):
    """Four pictures a task."""
    monkeypatch.setattr(module, "_CHUNK_BYTES", 4 * 16 * 16)


@pytest.fixture
def files(tmp_path):
    return [put(tmp_path / "pictures" / f"{i}.png", photograph(i, size=16)) for i in range(6)]


def folders(home):
    """What lies in the cache, locks aside."""
    return sorted(path.name for path in home.iterdir() if path.suffix != ".lock")


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


# What is left behind


def _cut_pixels(path):
    os.truncate(path / module.PIXELS, 100)


def _cut_index(path):
    os.truncate(path / module.INDEX, 100)


def _no_index(path):
    (path / module.INDEX).unlink()


def _garbage(path):
    (path / module.INDEX).write_bytes(bytes(4096))


def _half(path):
    path.rename(path.with_name(f"{path.name}.part"))


@pytest.mark.parametrize("damage", [_cut_pixels, _cut_index, _no_index, _garbage, _half])
def test_half_a_cache_is_built_again(damage, cache):
    expected = built(Drawn(10)).pixels.clone()
    (name,) = folders(cache)
    damage(cache / name)
    kept = built(again := Drawn(10))
    assert len(again.decoded) == 10
    assert (kept.pixels == expected).all()
    assert folders(cache) == [name]


BUILDER = """
import os, sys, time
from pathlib import Path
import numpy as np
from fer_fast.data.cache import store
from fer_fast.data.listing import Part
from fer_fast.data.pictures import Pictures
from fer_fast.data.prepare import Preparation

class Logged(Pictures):
    def __len__(self): return 30
    def read(self, index, *, gray):
        with open(sys.argv[1], "a") as log: log.write(f"{os.getpid()} {index}\\n")
        time.sleep(float(sys.argv[2]))
        return np.full((16, 16), index, np.uint8)
    def stamp(self): yield "logged"
    def take(self, rows): raise NotImplementedError

part = Part(Logged(), np.zeros(30, np.int64), tuple(map(str, range(30))))
kept = store(part, Preparation(16, 1), {"dataset": "stub", "part": "train", "root": "", "licence": ""})
print(kept.pixels[:, 0, 0, 0].tolist() == list(range(30)))
"""


def start(log, seconds):
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(log), str(seconds)], stdout=subprocess.PIPE, text=True)


def test_a_killed_builder_is_followed_by_another(cache, tmp_path):
    log = tmp_path / "log"
    first = start(log, 0.5)
    while not log.exists():
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert [name.endswith(".part") for name in folders(cache)] == [True]
    log.unlink()
    second = start(log, 0)
    assert second.communicate(timeout=60)[0] == "True\n"
    assert len(log.read_text().splitlines()) == 30
    assert [name.endswith(".part") for name in folders(cache)] == [False]


def test_two_processes_at_once_build_once(cache, tmp_path):
    log = tmp_path / "log"
    both = [start(log, 0.15) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["True\n"] * 2
    decodes = [line.split() for line in log.read_text().splitlines()]
    assert len(decodes) == 30
    assert len({process for process, _ in decodes}) == 1
    assert len(folders(cache)) == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
def test_what_stops_the_decoding_leaves_no_half(stop, cache, small_chunks):
    def decode(index):
        if index == 20:
            raise stop

    with pytest.raises(stop):
        built(Drawn(100, decode))
    assert folders(cache) == []
    assert len(built(Drawn(100)).pixels) == 100


def test_an_interrupt_ends_soon(cache, small_chunks, monkeypatch):
    """Ctrl-C comes to the thread that writes; the others have a queue of slow pictures."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    pictures = Drawn(1000, lambda index: time.sleep(0.01))

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(part_of(pictures), HOW, ABOUT, stop)
    assert folders(cache) == []
    assert len(pictures.decoded) <= 4 * (2 + 1 + 2)  # what was done, the next, and what two threads had begun


# Where it cannot be written

Usage = namedtuple("Usage", "total used free")


def test_a_disk_without_room_is_told_before_anything_is_decoded(cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 70_000_000))
    with pytest.raises(InputError, match=r"needs \d MB in .*, where \d+ MB are free; FER_FAST_CACHE"):
        built(pictures := Drawn(20_000))
    assert (pictures.decoded, folders(cache)) == ([], [])


def test_a_disk_that_fills_up_is_one_line(cache, small_chunks, monkeypatch):
    """/dev/full takes no byte."""
    real = Path.open

    def full(path, mode="r", *arguments, **keywords):
        return real(
            Path("/dev/full") if path.name == "pixels.u8" and "w" in mode else path, mode, *arguments, **keywords
        )

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match=r"cannot be written: No space left on device; FER_FAST_CACHE") as caught:
        built(Drawn(20))
    assert "\n" not in str(caught.value)
    assert folders(cache) == []


def test_a_file_that_may_not_grow_is_one_line(cache):
    """A write that takes a part of what it is given raises nothing; the one after it does."""
    code = BUILDER.replace(
        "part = ",
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\npart = ",
        1,
    )
    ran = subprocess.run([sys.executable, "-c", code, os.devnull, "0"], capture_output=True, text=True, timeout=60)
    assert ran.stderr.splitlines()[-1].endswith(
        "cannot be written: File too large; FER_FAST_CACHE names another folder"
    )
    assert folders(cache) == []


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_cache_that_cannot_be_made_is_one_line(place, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / place))
    with pytest.raises(InputError, match=r"^the cache .* cannot be written: .*FER_FAST_CACHE names another folder$"):
        built(Drawn(3))


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "a" / "b"))
    built(Drawn(3))
    assert len(folders(tmp_path / "a" / "b")) == 1
    monkeypatch.delenv("FER_FAST_CACHE")
    assert module.folder().name == "fer-fast"
    monkeypatch.setenv("FER_FAST_CACHE", "")
    assert module.folder().name == "fer-fast"


def test_a_cache_that_goes_away_is_still_read(cache):
    kept = built(Drawn(10))
    shutil.rmtree(cache)
    assert kept.pixels[:, 0, 0, 0].tolist() == list(range(10))


def test_what_the_data_is_stands_beside_the_pixels(cache):
    built(Drawn(3))
    with safe_open(cache / folders(cache)[0] / "index.safetensors", framework="pt") as file:
        assert ABOUT.items() <= file.metadata().items()
