"""MMI as people have it: sessions of videos and xml, their views, and what hostile or broken ones do."""

import os

import cv2
import pytest

from fer_fast.data import open_dataset
from fer_fast.data.detect import find_dataset
from fer_fast.data.opened import Wanted
from fer_fast.data.sources.mmi import EXPRESSIONS, INFO, NUMBERED, SEQUENCES, read_mmi
from fer_fast.errors import InputError
from frames_on_disk import HEIGHT, WIDTH, film, picture, refuse, write_picture, write_video

TAG = (
    '<?xml version="1.0"?>\n<recording><info/><a><Metatag Name="FCode" Value="9"/>'
    '<Metatag Name="Emotion" Value="{}"/></a></recording>'
)
TRACK = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<session><subject id="1"/>'
    '<track trackId="7" view="{}" type="Video"/></session>'
)


def session(
    root, number, emotion=4, *, subject="S003", view=0, frames=9, parent="Sessions", video=True, tag=TAG, **size
):
    """Sessions/<number>/ with S003-<number>.avi, its xml, session.xml and action units."""
    folder = root / parent / str(number)
    folder.mkdir(parents=True)
    stem = f"{subject}-{number:03d}"
    if video is True:
        write_video(folder / f"{stem}.avi", film(frames, **size))
    elif video is not None:
        (folder / f"{stem}.avi").write_bytes(video)
    if emotion is not None:
        (folder / f"{stem}.xml").write_text(tag.format(emotion))
    (folder / f"{stem}-oao_aucs.xml").write_text('<aucs><Metatag Name="Emotion" Value="6"/></aucs>')
    if view is not None:
        (folder / "session.xml").write_text(TRACK.format(view))
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))


def test_the_published_copy_is_clean(tmp_path):
    video = write_video(tmp_path / "film.avi", film()).read_bytes()
    root, number = tmp_path / "mmi", 0
    for i, name in enumerate(name for name, n in SEQUENCES.items() for _ in range(n)):
        number += 1
        emotion = next(key for key, value in NUMBERED.items() if value == name)
        session(root, number, emotion, subject=f"S{i % 30 + 1:03d}", video=video)
    for kind in ({"emotion": 9}, {"emotion": None}, {"view": 1}, {"video": None}):
        number += 1
        session(root, number, **{"video": video, **kind})
    listing = read_mmi(root)
    listing.compare(INFO.published)
    assert listing.faults == listing.problems == listing.notes == []
    assert listing.ignored == {
        "sessions of other emotions than the six": 1,
        "sessions without an emotion tag": 1,
        "sessions in profile": 1,
        "sessions without a video": 1,
    }
    assert (listing.sequences, len(listing.parts["all"]), listing.sure) == (208, 624, True)
    assert len(set(listing.parts["all"].subjects)) == 30


@pytest.mark.parametrize("parent", ["Sessions", "MMI/Sessions", "data/MMI/Sessions", "sessions", "."])
def test_every_tree_is_found(tmp_path, parent):
    session(tmp_path / "root", 5, 4, parent=parent)
    session(tmp_path / "root", 6, 1, parent=parent, subject="S021")
    part = read_mmi(tmp_path / "root").parts["all"]
    assert part.subjects == ("S003",) * 3 + ("S021",) * 3
    assert [EXPRESSIONS[label] for label in part.labels] == ["happiness"] * 3 + ["anger"] * 3
    assert part.names[0].endswith("5/S003-005.avi:3")
    assert len(set(part.groups)) == 2
    assert find_dataset(tmp_path / "root")[0].name == "mmi"


@pytest.mark.parametrize(("number", "name"), NUMBERED.items())
def test_every_number_has_its_name(tmp_path, number, name):
    session(tmp_path, 1, number)
    assert {EXPRESSIONS[label] for label in read_mmi(tmp_path).parts["all"].labels} == {name}


@pytest.mark.parametrize(("frames", "middle"), [(9, [3, 4, 5]), (10, [4, 5, 6]), (3, [0, 1, 2]), (4, [1, 2, 3])])
def test_the_three_middle_frames_are_taken(tmp_path, frames, middle):
    session(tmp_path, 1, frames=frames)
    listing = read_mmi(tmp_path)
    assert [int(name.rpartition(":")[2]) for name in listing.parts["all"].names] == middle
    assert listing.problems == []


@pytest.mark.parametrize("frames", [1, 2])
def test_a_video_of_fewer_than_three_frames_is_a_problem(tmp_path, frames):
    session(tmp_path, 1, frames=frames)
    listing = read_mmi(tmp_path)
    assert listing.problems == [f"1 sequences have fewer than 3 frames, the first: 1/S003-001.avi ({frames})"]
    assert len(listing.parts["all"]) == frames


def gray(listing, row):
    return listing.parts["all"].pictures.read(row, gray=True).astype(int)


def test_a_frontal_view_is_turned_upright(tmp_path):
    session(tmp_path, 1)
    image = gray(read_mmi(tmp_path), 1)
    assert image.shape == (WIDTH, HEIGHT)
    # Clockwise: what was at the top of the left half is at the right of the upper half.
    assert image[: WIDTH // 2, -HEIGHT // 4 :].mean() > 245
    assert image[WIDTH // 2 :, : HEIGHT // 4].mean() > 245
    assert abs(image[WIDTH // 2, HEIGHT // 2] - 4 * 20) < 6  # the frame in the middle of nine


def test_a_frontal_view_of_480_rows_stands_upright_already(tmp_path):
    session(tmp_path, 1, width=96, height=480)
    assert gray(read_mmi(tmp_path), 0).shape == (480, 96)


@pytest.mark.parametrize(
    ("subject", "half"), [("S003", "left"), ("S016", "left"), ("S001", "right"), ("S017", "right")]
)
def test_of_a_dual_view_the_frontal_half_is_kept(tmp_path, subject, half):
    session(tmp_path, 1, view=2, subject=subject)
    image = gray(read_mmi(tmp_path), 0)
    assert image.shape == (HEIGHT, WIDTH // 2)
    top, bottom = image[: HEIGHT // 4].mean(), image[-HEIGHT // 4 :].mean()
    assert (top > 245, bottom > 245) == (half == "left", half == "right")


@pytest.mark.parametrize(("view", "reason"), [(1, "sessions in profile"), (7, "sessions of an unknown view")])
def test_other_views_are_counted_and_left_aside(tmp_path, view, reason):
    session(tmp_path, 1, view=view)
    session(tmp_path, 2)
    listing = read_mmi(tmp_path)
    assert listing.ignored == {reason: 1}
    assert listing.sequences == 1


def test_the_half_of_an_unknown_person_is_a_guess_that_is_noted(tmp_path):
    session(tmp_path, 1, view=2, subject="S044")
    session(tmp_path, 2, view=2, subject="S001")
    listing = read_mmi(tmp_path)
    assert listing.notes == [
        "1 sequences show two views, of which the left is taken as the frontal one, the first: 1/S044-001.avi"
    ]
    assert gray(listing, 0)[: HEIGHT // 4].mean() > 245


@pytest.mark.parametrize("xml", [None, "<session><track type='Video'/></session>"])
def test_a_session_that_does_not_say_its_view_is_taken_as_frontal_and_noted(tmp_path, xml):
    folder = session(tmp_path, 1, view=None)
    if xml:
        (folder / "session.xml").write_text(xml)
    listing = read_mmi(tmp_path)
    assert listing.notes == ["1 sequences do not say their view, and are taken as frontal, the first: 1/S003-001.avi"]
    assert gray(listing, 0).shape == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "tag",
    [
        '<Metatag Name="Emotion" Value="{}"/>',
        '<a><b><c><Metatag Name="Emotion" Value=" {} "/></c></b></a>',
        '<a xmlns="http://mmi"><Metatag Value="{}" Name="Emotion"/></a>',
        '\ufeff<?xml version="1.0"?><a><Metatag Name="Emotion" Value="{0}"/><Metatag Name="Emotion" Value="{0}"/></a>',
    ],
)
def test_the_emotion_tag_may_stand_anywhere(tmp_path, tag):
    session(tmp_path, 1, 3, tag=tag)
    assert {EXPRESSIONS[label] for label in read_mmi(tmp_path).parts["all"].labels} == {"fear"}


def test_action_units_say_no_emotion(tmp_path):
    session(tmp_path, 1, None)
    session(tmp_path, 2, 5)
    listing = read_mmi(tmp_path)
    assert listing.ignored == {"sessions without an emotion tag": 1}
    assert {EXPRESSIONS[label] for label in listing.parts["all"].labels} == {"sadness"}


@pytest.mark.parametrize("value", ["", "happy", "0", "-1", "4.0", "9" * 20])
def test_a_tag_that_is_no_number_is_a_problem_and_left_out(tmp_path, value):
    session(tmp_path, 1, value)
    session(tmp_path, 2, 5)
    listing = read_mmi(tmp_path)
    (problem,) = listing.problems
    assert f"{tmp_path}/Sessions/1 is left out: its emotion tags are {value!r}, not one number" == problem
    assert set(listing.parts["all"].groups) == {"2/S003-002.avi"}


def test_tags_that_differ_are_a_problem_and_left_out(tmp_path):
    session(tmp_path, 1, tag='<a><Metatag Name="Emotion" Value="1"/><Metatag Name="Emotion" Value="2"/></a>')
    session(tmp_path, 2, 5)
    (problem,) = read_mmi(tmp_path).problems
    assert "its emotion tags are '1', '2', not one number" in problem


BOMB = '<!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;">]><a><Metatag Name="Emotion" Value="4"/>&m;</a>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><a><Metatag Name="Emotion" Value="4"/>&f;</a>'


@pytest.mark.parametrize("name", ["S003-001.xml", "session.xml"])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (BOMB.encode(), "defines a document type"),
        (OUTSIDE.encode(), "defines a document type"),
        (BOMB.encode("utf-16"), "defines a document type or is not in UTF-8"),
        (b"\xff\xfe<\0a\0/\0>\0", "not in UTF-8"),
        (b"<a><b></a>", "not an xml file"),
        (b"", "not an xml file"),
        (b"\x89PNG\r\n\x1a\n", "not an xml file"),
        (b"<?xml version='1.0' encoding='nonsense'?><a/>", "not an xml file"),
        (b"<a>" + b" " * (1 << 20) + b"</a>", "larger than an annotation can be"),
    ],
)
def test_hostile_and_broken_xml_is_a_fault_by_name(tmp_path, name, data, said):
    (session(tmp_path, 1) / name).write_bytes(data)
    session(tmp_path, 2, 5)
    listing = read_mmi(tmp_path)
    (fault,) = listing.faults
    assert fault.startswith(f"{tmp_path}/Sessions/1/{name}: ")
    assert said in fault
    assert "\n" not in fault
    assert set(listing.parts["all"].groups) == {"2/S003-002.avi"}


def test_xml_that_may_not_be_read_is_a_fault_by_name(tmp_path, monkeypatch):
    session(tmp_path, 1)
    session(tmp_path, 2)
    refuse(monkeypatch, "S003-001.xml")
    listing = read_mmi(tmp_path)
    assert listing.faults == [f"{tmp_path}/Sessions/1/S003-001.xml cannot be read: Permission denied"]
    assert listing.sequences == 1


def test_a_deep_xml_is_read(tmp_path):
    deep = "<a>" * 20_000 + '<Metatag Name="Emotion" Value="{}"/>' + "</a>" * 20_000
    session(tmp_path, 1, 6, tag=deep)
    assert {EXPRESSIONS[label] for label in read_mmi(tmp_path).parts["all"].labels} == {"surprise"}


def video_bytes(tmp_path, count=40):
    return write_video(tmp_path / "whole.avi", film(count, step=6)).read_bytes()


@pytest.mark.parametrize("cut", ["empty", "head", "text", "playlist", "png"])
def test_a_broken_video_is_a_fault_by_name(tmp_path, cut):
    data = {
        "empty": b"",
        "head": video_bytes(tmp_path)[:900],
        "text": b"RIFF\0\0\0\0AVI nothing of the kind" * 50,
        "playlist": f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/whole.avi\n#EXT-X-ENDLIST\n".encode(),
        "png": cv2.imencode(".png", picture())[1].tobytes(),
    }[cut]
    session(tmp_path / "root", 1, video=data)
    session(tmp_path / "root", 2)
    listing = read_mmi(tmp_path / "root")
    cut_film = tmp_path / "root" / "Sessions" / "1" / "S003-001.avi"
    assert listing.faults == [f"{cut_film}: not a video that can be opened"]
    with pytest.raises(InputError, match=r"S003-001\.avi: not a video"):
        open_dataset("mmi", tmp_path / "root")


@pytest.mark.filterwarnings("ignore:mmi in .* published")
def test_a_video_that_breaks_off_is_unreadable_by_name(tmp_path):
    whole = video_bytes(tmp_path)
    end = whole.rindex(b"idx1")
    broken = whole[: end // 4] + b"\0" * (end - end // 4) + whole[end:]  # the index promises frames that are not there
    for number in range(1, 13):
        session(tmp_path / "root", number, subject=f"S{number:03d}", video=broken if number == 1 else True)
    copy = open_dataset("mmi", tmp_path / "root", Wanted(faces="whole"))
    with pytest.raises(
        InputError, match=r"3 of 36 all images cannot be read, the first: Sessions/1/S001-001\.avi:19: a video"
    ):
        copy.split("test")
    kept = open_dataset("mmi", tmp_path / "root", Wanted(faces="whole", unreadable="skip")).split("test")
    assert {name.partition(":")[0] for name in kept.names} == {"Sessions/11/S011-011.avi"}


def test_sessions_of_photographs_are_an_option(tmp_path):
    folder = session(tmp_path, 1, video=None)
    write_picture(folder / "S003-001.png", 90, width=30, height=40)
    (folder / "thumbnail.jpg").touch()
    session(tmp_path, 2, 5)
    listing = read_mmi(tmp_path)
    assert listing.ignored == {"sessions with photographs in place of a video (option stills)": 1}
    with_stills = read_mmi(tmp_path, stills=True)
    assert with_stills.parts["all"].names[0] == "Sessions/1/S003-001.png"
    assert (gray(with_stills, 0) == picture(90, width=30, height=40)).all()
    assert (len(with_stills.parts["all"]), with_stills.sequences) == (4, 1)


def test_of_several_videos_one_is_taken_and_the_rest_counted(tmp_path):
    folder = session(tmp_path, 1)
    write_video(folder / "S003-001-turned.avi", film())
    listing = read_mmi(tmp_path)
    assert set(listing.parts["all"].groups) == {"1/S003-001.avi"}
    assert len(listing.parts["all"]) == 3
    assert listing.ignored == {"further videos of a session": 1}


def test_litter_empty_sessions_and_links_are_left_aside(tmp_path):
    root = tmp_path / "mmi"
    folder = session(root, 1)
    (root / "Sessions/2").mkdir()
    (folder / "._S003-001.avi").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").touch()
    outside = session(tmp_path / "elsewhere", 3, subject="S044")
    os.symlink(outside, root / "Sessions/3")
    listing = read_mmi(root)
    assert listing.faults == listing.problems == []
    assert set(listing.parts["all"].subjects) == {"S003"}
    assert listing.ignored == {"sessions without an emotion tag": 1}


def test_a_copy_of_which_nothing_can_be_used_says_why(tmp_path):
    session(tmp_path, 1, None)
    session(tmp_path, 2, 7)
    with pytest.raises(InputError, match="1 sessions without an emotion tag; 1 sessions of other emotions"):
        read_mmi(tmp_path)


def test_another_folder_is_none_of_it(tmp_path):
    write_picture(tmp_path / "Sessions/1/image.png")
    write_picture(tmp_path / "train/happy/S003-001.png")
    assert read_mmi(tmp_path) is None
    assert read_mmi(tmp_path / "Sessions/1/image.png") is None


@pytest.mark.filterwarnings("ignore:mmi in .* published")
def test_frames_are_decoded_at_one_size_and_folds_share_no_one(tmp_path):
    for number in range(1, 13):
        session(tmp_path, number, number % 6 + 1, subject=f"S{number:03d}")
    copy = open_dataset("mmi", tmp_path, Wanted(faces="whole", fold=2, image_size=16))
    splits = {split: copy.split(split) for split in ("train", "val", "test")}
    assert {split: len(data) for split, data in splits.items()} == {"train": 27, "val": 3, "test": 6}
    assert splits["test"].images.shape == (6, 1, 16, 16)
    assert sorted({name.split("/")[1] for name in splits["test"].names}) == ["12", "2"]
