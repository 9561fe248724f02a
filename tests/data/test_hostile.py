"""Trees that are broken, or made to do harm: every one ends in lines for people, and in no more than that."""

import json
import os
import pickle
import signal
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path
from random import Random
from shutil import copytree, rmtree
from struct import pack

import numpy as np
import pytest

from data_trees import draw, write
from fer2013_trees import add_member, png, write_whole
from fer_fast.cli import main
from fer_fast.data import FaceDataset, load_dataset
from fer_fast.data import pictures as pictures_module
from fer_fast.data.pictures import Files, Slices
from fer_fast.data.videos import open_video
from fer_fast.errors import InputError
from frames_on_disk import picture
from layouts import LAYOUTS, class_tree, mutate

SECONDS = 60  # after which a test hangs
BAD = "a\nb\x1b[31m\u202egpj.exe\x07"  # a line end, a colour, a turn of the reading direction, a bell


@pytest.fixture(autouse=True)
def no_hang():
    def stop(*_):
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def root(tmp_path):
    """A tree without a problem."""
    class_tree(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def check(capsys):
    """Runs `data check`: its exit status, the lines it prints, and the line of the error."""

    def run(*arguments):
        status = main(["data", "check", *map(str, arguments)])
        printed = capsys.readouterr()
        said = [line for line in printed.err.splitlines() if not line.startswith("fer-fast: warning: ")]
        assert status in (0, 1, 2)
        assert [line.startswith("fer-fast: error: ") for line in said] == ([True] if status == 2 else [])
        lines = printed.out.split("\n") + printed.err.split("\n")
        assert all(line.isprintable() for line in lines)
        assert not any("Traceback" in line for line in lines)
        return status, [line for line in printed.out.splitlines() if line], said[0] if said else ""

    return run


def problems(lines):
    return [line.removeprefix("problem: ") for line in lines if line.startswith("problem: ")]


# Files that are no pictures


def png_of(width, height):
    def chunk(kind, data):
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    header = pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


class Bomb:
    """Whoever unpickles it makes a folder."""

    def __init__(self, where):
        self.where = where

    def __reduce__(self):
        return os.mkdir, (str(self.where),)


def zipped(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(20 << 20))


NO_PICTURES = {
    "empty.jpg": (lambda path: path.touch(), "the file is empty"),
    "cut.jpg": (lambda path: path.write_bytes(draw(path, 90, 90).read_bytes()[:900]), "cut short or broken"),
    "cut.png": (lambda path: path.write_bytes(draw(path, 90, 90).read_bytes()[:-20]), "a PNG that is cut short"),
    "huge.png": (lambda path: path.write_bytes(png_of(60_000, 60_000)), "60000 × 60000 pixels; at most"),
    "zip.png": (zipped, "no image of a kind that is read"),
    "pickle.jpg": (lambda path: path.write_bytes(pickle.dumps(Bomb(path.parent / "harm"))), "no image of a kind"),
    "numpy.png": (lambda path: path.write_bytes(b"\x93NUMPY\1\0" + bytes(99)), "no image of a kind that is read"),
    "program.jpg": (lambda path: path.write_text("%!PS\n(/tmp/harm) (w) file\n"), "no image of a kind that is read"),
    "endless.jpg": (lambda path: path.touch() or os.truncate(path, 5 << 30), "5368709120 bytes; at most 200000000"),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture_is_named(name, root, check):
    spoil, message = NO_PICTURES[name]
    spoil(root / "train" / "awake" / name)
    status, lines, _ = check(root)
    assert status == 1
    (line,) = problems(lines)
    assert line.startswith(f"train: train/awake/{name}: {message}")
    with pytest.raises(InputError, match=r"1 of \d train images cannot be read, the first: ") as caught:
        load_dataset("folder", root, image_size=30)
    assert message in str(caught.value)
    assert len(load_dataset("folder", root, image_size=30, unreadable="skip")) == 6  # of eight
    assert not (root / "train" / "awake" / "harm").exists()


def test_only_regular_files_are_read(tmp_path):
    """However they come to be in a list: a pipe that nobody writes to, and a device without an end."""
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero", tmp_path):
        with pytest.raises(InputError, match="not a file"):
            Files([path]).read(0, gray=True)
        with pytest.raises(InputError, match="not a file"):
            open_video(path)


def test_members_of_archives_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures_module, "MOST_BYTES", 1000)
    path = draw(tmp_path / "x.bmp", 40, 40)
    with pytest.raises(InputError, match="4000 bytes; at most 1000 are read"):
        Slices([path], np.array([[0, 4000]])).read(0, gray=True)


# Pipes, devices and links


def test_pipes_devices_and_links_are_left_aside(root, tmp_path, check):
    write(tmp_path / "elsewhere" / "secret.jpg", "not in the tree")
    folder = root / "train" / "awake"
    os.mkfifo(folder / "pipe.jpg")
    for name, target in {
        "zero.jpg": "/dev/zero",
        "passwords.jpg": "/etc/passwd",
        "secret.jpg": "../../../elsewhere/secret.jpg",
        "nowhere.jpg": "nothing",
        "itself.jpg": "itself.jpg",
        "up": "..",
    }.items():
        os.symlink(target, folder / name)
    os.symlink(tmp_path / "elsewhere", root / "train" / "others")
    status, lines, _ = check(root)
    assert (status, problems(lines)) == (0, [])
    assert "ignored: 1 pipes, sockets and devices" in lines
    assert "ignored: 6 links that lead out of the folder, or nowhere" in lines
    dataset = load_dataset("folder", root, image_size=30)
    assert (len(dataset), dataset.classes) == (6, ("asleep", "awake"))  # two of eight are held out


def test_folders_in_a_circle(tmp_path, check):
    (tmp_path / "a" / "b").mkdir(parents=True)
    os.symlink(tmp_path / "a", tmp_path / "a" / "b" / "a")
    status, _, error = check(tmp_path)
    assert status == 2
    assert "is none of the data sets" in error


@pytest.mark.parametrize("name", ["fer2013.csv", "training.csv", "list_patition_label.txt", "label.lst", "data.yaml"])
def test_a_pipe_in_the_place_of_a_list_is_not_waited_for(name, tmp_path, check):
    os.mkfifo(tmp_path / name)
    assert check(tmp_path)[0] == 2
    assert check(tmp_path / name)[0] == 2


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/etc/passwd", "", "a\0b", "a" * 5000, "/nowhere/at\nall"])
def test_places_that_are_no_dataset(path, check, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check(path)[0] == 2
    assert check(path, "--dataset", "fer2013")[0] == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(root, check):
    (root / "train" / "awake").chmod(0)
    try:
        status, lines, error = check(root)
    finally:
        (root / "train" / "awake").chmod(0o755)
    assert status > 0
    assert "cannot be read: Permission denied" in "".join((*lines, error))


# Names


def test_no_name_steers_a_terminal(root, check, tmp_path):
    """All that a tree can name: files, folders of classes, the root itself."""
    for name in (BAD, "train"):
        folder = root / "train" / name
        folder.mkdir()
        draw(folder / f"{BAD}.png")
    (root / "train" / "awake" / f"{BAD}.jpg").touch()
    os.link(root / "test" / "awake" / "0.jpg", root / "train" / BAD / f"{BAD} again.jpg")
    hostile = root.rename(root.parent / BAD)
    status, lines, _ = check(hostile)
    assert status == 1
    assert sum("a\\nb\\x1b[31m\\u202egpj.exe\\x07" in line for line in lines) >= 4
    assert check(hostile / "train" / "awake")[0] == 2
    assert check(hostile / "nowhere")[0] == 2


def test_names_in_no_encoding(root, check, capsys):
    """As zip files of Windows leave them behind."""
    broken = Path(os.fsdecode(os.fsencode(root.parent) + b"/caf\xe9"))
    root.rename(broken)
    draw(broken / "train" / "awake" / os.fsdecode(b"\xe9.png"), seed=99)
    assert check(broken)[0] == 0
    main(["data", "check", str(broken), "--json"])
    assert json.loads(capsys.readouterr().out)["counts"]["train"] == {"asleep": 4, "awake": 5}
    names = (
        load_dataset("folder", broken, image_size=30).names
        + load_dataset("folder", broken, split="val", image_size=30).names
    )
    assert any(os.fsencode(name).endswith(b"/\xe9.png") for name in names)


# Archives, pickles and lists


def test_archives_write_nowhere(tmp_path, check, cache):
    """Members that climb out, links to files of the machine, and a member that is one."""
    root = tmp_path / "data"
    write_whole(root)
    data = (root / "fer2013.csv").read_bytes()
    (root / "fer2013.csv").unlink()
    with tarfile.open(root / "fer2013.tar.gz", "w:gz") as tar:
        for name, target in {"link.csv": "/etc/passwd", "../up": "../..", "fer2013/icml_face_data.csv": "../x"}.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        add_member(tar, "../../harm.csv", b"harm")
        add_member(tar, "/tmp/fer-fast harm.csv", b"harm")
        add_member(tar, "../../fer2013.csv", data)
    assert check(root)[0] == 1  # it holds fer2013.csv; where its member wanted to go does not matter
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    assert not Path("/tmp/fer-fast harm.csv").exists()
    assert all(path.resolve().is_relative_to(cache) for path in cache.rglob("*"))


def test_shards_lead_nowhere(tmp_path, check):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        with tarfile.open(tmp_path / part / "0.tar", "w") as tar:
            add_member(tar, "good.png", png(picture(50 if part == "train" else 150)))
            add_member(tar, "good.cls", b"1")
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
                member = tarfile.TarInfo(f"../{kind.decode()}.jpg")
                member.type, member.linkname = kind, "/etc/passwd"
                tar.addfile(member)
                add_member(tar, f"../{kind.decode()}.cls", b"0")
    write(tmp_path / "classnames.txt", "angry\nhappy\n")
    status, lines, _ = check(tmp_path, "--dataset", "fer2013")
    assert status == 1
    assert sum("no picture" in line for line in problems(lines)) == 8


def test_annotations_are_never_unpickled(tmp_path, check):
    LAYOUTS["affectnet newer"].build(tmp_path / "data")
    places = sorted((tmp_path / "data" / "train_set" / "annotations").glob("*_exp.npy"))
    np.save(places[0], np.array(Bomb(tmp_path / "harm"), dtype=object), allow_pickle=True)
    places[1].write_bytes(pickle.dumps(Bomb(tmp_path / "harm")))
    status, lines, _ = check(tmp_path / "data", "--order", "affectnet", "--dataset", "affectnet8")
    assert status == 1
    assert sum("is no number" in line for line in problems(lines)) == 2
    assert not (tmp_path / "harm").exists()


# A thousand broken files


@pytest.mark.parametrize("name", LAYOUTS)
def test_broken_files_end_in_lines(name, tmp_path, check):
    build, dataset, order = LAYOUTS[name]
    build(tmp_path / "good")
    refused = []
    for seed in range(10):
        random = Random(f"{name} {seed}")
        copytree(tmp_path / "good", tmp_path / "bad")
        broken = mutate(tmp_path / "bad", random, files=1 + seed)
        try:
            check(tmp_path / "bad", *(("--dataset", dataset, "--order", order) if order else ()))
            with warnings.catch_warnings(action="ignore"):
                data = load_dataset(dataset, tmp_path / "bad", split=random.choice(("train", "test")), order=order)
            assert isinstance(data, FaceDataset)
        except InputError as error:
            refused.append(str(error))
        except BaseException as error:
            error.add_note(f"{name}, seed {seed}: {broken}")
            raise
        rmtree(tmp_path / "bad")
    assert not any("\n" in line for line in refused)
