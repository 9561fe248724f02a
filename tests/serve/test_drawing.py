"""Boxes and labels on pictures of any size."""

import numpy as np
import pytest
from PIL import ImageColor

from fer_fast.palette import GRAY, PALETTE
from fer_fast.serve import drawing
from fer_fast.serve.drawing import Mark, draw, marks
from fer_fast.serve.model import NamedFace

CLASSES = ("neutral", "Überraschung", "sadness")


def blank(height, width, value=60):
    return np.full((height, width, 3), value, np.uint8)


def face(label="neutral", box=(100, 100, 80, 80), found=True):
    return NamedFace(label, label, 0.875, dict.fromkeys(CLASSES, 0.3), None, box, found)


def of(image, colour):
    """Where a picture has a colour, (height, width)."""
    return (image == ImageColor.getrgb(colour)).all(-1)


def test_marks_say_class_score_and_what_was_not_found():
    plain, unknown = marks([face("Überraschung"), face("unknown", found=False)], CLASSES, ("#3", "#4"))
    assert plain == Mark((100, 100, 80, 80), "#3 Überraschung 0.88", PALETTE[1])
    assert (unknown.text, unknown.colour, unknown.dashed) == ("#4 unknown 0.88", GRAY, True)
    assert "\n" not in marks([face("two\nlines")], ("two\nlines",))[0].text
    many = [f"{i}" for i in range(30)]
    assert GRAY not in {mark.colour for mark in marks(map(face, many), many)}


def test_the_box_is_where_the_face_is():
    image = blank(400, 400)
    drawn = draw(image, marks([face()], CLASSES))
    assert drawn.shape == image.shape
    assert (image == 60).all()  # a copy
    rows, columns = (np.flatnonzero(of(drawn, PALETTE[0])[:, 100:180].any(1)), np.flatnonzero(
        of(drawn, PALETTE[0])[100:180].any(0)))  # fmt: skip
    assert rows.max() == columns.max() == 179
    assert columns.min() == 100
    assert (drawn[110:170, 110:170] == 60).all()


def test_a_box_that_was_not_found_is_dashed():
    whole, dashed = (draw(blank(400, 400), marks([face(found=found)], CLASSES)) for found in (True, False))
    bottoms = [of(drawn, PALETTE[0])[178, 100:180] for drawn in (whole, dashed)]
    assert bottoms[0].all()
    assert 0.3 < bottoms[1].mean() < 0.7


@pytest.mark.parametrize("shape", [(48, 48), (6, 900), (900, 6), (1, 1), (400, 300), (3000, 4000)])
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (-50, -50, 200, 200), (5000, 5000, 10, 10), (0, 0, 9999, 9999)])
def test_pictures_and_boxes_of_any_size(shape, box):
    drawn = draw(blank(*shape), marks([face(box=box)], CLASSES))
    assert drawn.dtype == np.uint8
    assert drawn.shape[0] >= max(shape[0], 64)
    assert drawn.shape[1] >= max(shape[1], 160)
    assert of(drawn, PALETTE[0]).any()


def test_small_pictures_are_enlarged_for_their_labels_and_large_ones_keep_their_size():
    assert draw(blank(48, 40), marks([face(box=(0, 0, 40, 48))], CLASSES)).shape == (320, 267, 3)
    assert draw(blank(300, 500), marks([face(box=(9, 9, 25, 30))], CLASSES)).shape == (960, 1600, 3)
    assert draw(blank(1700, 900), marks([face(box=(9, 9, 25, 30))], CLASSES)).shape == (1700, 900, 3)
    assert draw(blank(2000, 1000), [], 640).shape == (640, 320, 3)


def test_labels_hide_neither_one_another_nor_faces(monkeypatch):
    written = []
    label = drawing._label
    monkeypatch.setattr(drawing, "_label", lambda *given: written.append(label(*given)) or written[-1])
    boxes = [(20 + 110 * (i % 5), 40 + 130 * (i // 5), 60, 70) for i in range(20)]
    draw(blank(600, 600), marks([face(box=box) for box in boxes], CLASSES))
    corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    assert len(written) == 20
    for i, one in enumerate(written):
        assert one[0] >= 0
        assert one[1] >= 0
        assert one[2] <= 600
        assert one[3] <= 600
        assert sum(drawing._shared(one, other) for other in (*written[:i], *corners)) == 0


def test_letters_beyond_ascii_are_in_the_font():
    font = drawing._font(20)
    missing = bytes(font.getmask("\U0010fffe"))
    assert all(bytes(font.getmask(letter)) != missing for letter in "ÜéñßłøçğΣχРд…")


def test_long_names_are_written_smaller():
    text = "a class of a very long name " * 2
    drawn = draw(blank(300, 400), [Mark((100, 100, 80, 80), text, PALETTE[0])])
    assert of(drawn, PALETTE[0])[:, :3].any() or of(drawn, PALETTE[0])[:, 50:350].any()
    assert drawing._fitting(text, (400, 300), 80).getlength(text) <= 400
