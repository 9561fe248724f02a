"""Files that replace others at once."""

import os

import cv2
import pytest

from fer_fast.errors import InputError
from fer_fast.page import write_page
from fer_fast.serve.drawing import annotate
from fer_fast.written import write_bytes, write_text
from untrained import photograph


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_whatever_stops_it_the_old_file_is_whole_and_nothing_lies_beside_it(stop, tmp_path, monkeypatch):
    def stopped(_descriptor):
        raise stop

    page, drawn, photo = tmp_path / "page.html", tmp_path / "drawn.png", tmp_path / "photo.png"
    for path in (page, drawn):
        path.write_text("old")
    cv2.imwrite(str(photo), photograph())
    monkeypatch.setattr("fer_fast.written.os.fsync", stopped)
    monkeypatch.setattr("fer_fast.page.rendered", lambda _template: "new")
    for write in (
        lambda: write_bytes(page, b"new"),
        lambda: write_page(page, "train/compare.html.j2"),
        lambda: annotate(str(photo), drawn, (), ()),
    ):
        with pytest.raises(KeyboardInterrupt if isinstance(stop, KeyboardInterrupt) else InputError):
            write()
    assert page.read_text() == drawn.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["drawn.png", "page.html", "photo.png"]


def test_a_device_is_written_to_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "a page")
    assert os.read(reader, 100) == b"a page"
    os.close(reader)
    assert os.listdir(tmp_path) == ["pipe"]
    with pytest.raises(InputError, match=f"cannot write {tmp_path}: Is a directory"):
        write_text(tmp_path, "a page")
    with pytest.raises(InputError, match="cannot write /dev/full: No space left on device"):
        write_text(type(tmp_path)("/dev/full"), "a page")


def test_a_name_that_is_not_unicode_is_spelled_out(tmp_path):
    write_text(tmp_path / "page", "caf\udce9")
    assert (tmp_path / "page").read_text() == "caf\\udce9"
