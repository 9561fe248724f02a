"""Walking folders: junk, links, hostile names, folders that cannot be read, and many files."""

import os
import time
from collections import Counter

import pytest

from data_trees import touch
from fer_fast.data.files import bases, find, image_names, list_folders, list_images, shown
from fer_fast.errors import InputError

JUNK = (".DS_Store", "Thumbs.db", "THUMBS.DB", "._face.jpg", "desktop.ini", ".hidden.png")


def test_pictures_are_listed_by_name_whatever_the_case_of_their_ending(tmp_path):
    for name in ("b.JPG", "a.jpeg", "c.Png", "d.bmp", "e.TIF", "f.tiff", "g.webp"):
        touch(tmp_path / name)
    ignored = Counter()
    assert image_names(tmp_path, ignored) == ["a.jpeg", "b.JPG", "c.Png", "d.bmp", "e.TIF", "f.tiff", "g.webp"]
    assert list_images(tmp_path) == [tmp_path / name for name in image_names(tmp_path)]
    assert ignored == {}


def test_what_is_left_aside_is_counted_with_its_reason(tmp_path):
    for name in (*JUNK, "good.jpg", "notes.txt", "more.txt", "odd.a\nb", "no ending"):
        touch(tmp_path / name)
    touch(tmp_path / "folder" / "inner.jpg")
    touch(tmp_path / "__MACOSX" / "x.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    ignored = Counter()
    assert image_names(tmp_path, ignored) == ["good.jpg"]
    assert ignored == {
        "hidden files and files of the operating system": len(JUNK) + 1,
        "files that are no pictures (.txt)": 2,
        "files that are no pictures (other endings)": 2,
        "folders inside a folder of pictures": 1,
        "pipes, sockets and devices": 1,
    }
    assert list_folders(tmp_path) == [tmp_path / "folder"]


def test_links_that_lead_out_are_not_followed(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root / "a" / "real.jpg")
    secret = touch(outside / "secret.jpg")
    (root / "a" / "inside.jpg").symlink_to(root / "a" / "real.jpg")
    (root / "a" / "out.jpg").symlink_to(secret)
    (root / "a" / "nowhere.jpg").symlink_to(root / "missing.jpg")
    (root / "a" / "loop.jpg").symlink_to(root / "a" / "loop.jpg")
    (root / "out").symlink_to(outside)
    (root / "b").symlink_to(root / "a")
    ignored = Counter()
    assert list_folders(root, ignored) == [root / "a", root / "b"]
    assert ignored == {"links that lead out of the folder, or nowhere": 1}
    assert image_names(root / "a", ignored, root) == ["inside.jpg", "real.jpg"]
    assert ignored == {"links that lead out of the folder, or nowhere": 4}
    # A folder whose name only begins like the root's is outside of it.
    touch(tmp_path / "root2" / "x.jpg")
    (root / "a" / "near.jpg").symlink_to(tmp_path / "root2" / "x.jpg")
    assert image_names(root / "a", within=root) == ["inside.jpg", "real.jpg"]


def test_a_root_that_is_a_link_itself_is_followed(tmp_path):
    touch(tmp_path / "disk" / "a" / "x.jpg")
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    assert list_folders(tmp_path / "data") == [tmp_path / "data" / "a"]
    (tmp_path / "disk" / "b").symlink_to(tmp_path / "disk" / "a")
    assert list_folders(tmp_path / "data") == [tmp_path / "data" / "a", tmp_path / "data" / "b"]


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    file = touch(tmp_path / "file\nname")
    with pytest.raises(InputError, match="Not a directory") as caught:
        list_folders(file)
    assert "\n" not in str(caught.value)
    assert r"file\nname" in str(caught.value)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"^/.* cannot be read: Permission denied$"):
        image_names(tmp_path)


HOSTILE = (
    "new\nline.jpg",
    "سعيد.jpg",
    "‮gpj.exe.jpg",
    "sp ace.jpg",
    "quote'\".jpg",
    "%s{0}.jpg",
    os.fsdecode(b"\xff\xfe.jpg"),
)


def test_hostile_names_survive_and_are_shown_in_one_line(tmp_path):
    for name in HOSTILE:
        touch(tmp_path / name)
    assert sorted(image_names(tmp_path)) == sorted(HOSTILE)
    assert all(path.exists() for path in list_images(tmp_path))
    for name in HOSTILE:
        assert shown(name).isprintable()
        shown(name).encode()
    assert shown("سعيد.jpg") == "سعيد.jpg"
    assert shown("new\nline.jpg") == r"new\nline.jpg"
    assert shown("‮gpj.exe.jpg") == r"\u202egpj.exe.jpg"


def test_find_does_not_mind_case_and_keeps_the_order_of_names(tmp_path):
    touch(tmp_path / "EMOLABEL" / "x.txt")
    touch(tmp_path / "second.txt")
    assert find(tmp_path, "EmoLabel") == tmp_path / "EMOLABEL"
    assert find(tmp_path, "first.txt", "SECOND.txt", "emolabel") == tmp_path / "second.txt"
    assert find(tmp_path, "third.txt") is None


def test_bases_go_down_known_names_and_lone_folders_nearest_first(tmp_path):
    for folder in ("RAF-DB/basic/deep", "RAF-DB/compound", "other/x"):
        (tmp_path / folder).mkdir(parents=True)
    found = [path.relative_to(tmp_path).as_posix() for path in bases(tmp_path, {"rafdb", "basic"})]
    assert found == [".", "RAF-DB", "RAF-DB/basic", "RAF-DB/basic/deep"]
    lone = tmp_path / "other"
    assert [path.name for path in bases(lone, ())] == ["other", "x"]
    assert list(bases(touch(tmp_path / "file.csv"), ())) == []


def test_bases_end_where_links_turn_in_a_circle(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data").symlink_to(tmp_path)
    assert len(list(bases(tmp_path, {"data"}))) == 5


def test_thirty_thousand_files_take_less_than_a_second(tmp_path):
    for number in range(30_000):
        os.close(os.open(tmp_path / f"{number}.jpg", os.O_CREAT | os.O_WRONLY))
    start = time.perf_counter()
    assert len(image_names(tmp_path)) == 30_000
    assert time.perf_counter() - start < 1  # measured: 0.04 s
