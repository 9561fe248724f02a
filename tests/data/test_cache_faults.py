"""The cache after a kill, damage or a full disk: what is built again, what is left, what is said."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from safetensors import safe_open

from drawn_pictures import ABOUT, HOW, Drawn, built, folders, part_of
from fer_fast.data import cache as module
from fer_fast.data.cache import store
from fer_fast.errors import InputError

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
