"""One small tree of every layout that is read, with drawn pictures; and ways in which files get broken."""

import tarfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from data_trees import draw, write
from fer2013_trees import (
    FOLDERS,
    NUMBERED,
    PLACES,
    add_member,
    named_table,
    official_table,
    png,
    rows,
    write_arrow,
    write_folders,
    write_packed,
    write_parquet,
    write_shards,
    write_tables,
    write_whole,
)
from frames_on_disk import picture, write_picture, write_video

_BASIC = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
_VOTES = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def _ferplus(root: Path) -> None:
    write_whole(root)
    columns = _VOTES.split(",")
    lines = [
        f"{usage},fer{i:07d}.png,{','.join('10' if name == NUMBERED[label] else '0' for name in columns)}"
        for usage, split in (("Training", "train"), ("PublicTest", "val"), ("PrivateTest", "test"))
        for i, (label, _) in enumerate(rows(split))
    ]
    write(root / "fer2013new.csv", "\n".join((f"Usage,Image name,{_VOTES}", *lines)) + "\n")


def _ferplus_images(root: Path) -> None:
    for folder, split in (("FER2013Train", "train"), ("FER2013Valid", "val"), ("FER2013Test", "test")):
        lines = []
        for i, (label, image) in enumerate(rows(split)):
            write(root / folder / "label.csv", "")
            (root / folder / f"fer{i:07d}.png").write_bytes(png(image))
            votes = ",".join("9" if name == NUMBERED[label] else "0" for name in _VOTES.split(","))
            lines.append(f'fer{i:07d}.png,"(0, 0, 48, 48)",{votes}')
        write(root / folder / "label.csv", "\n".join(lines))


def _rafdb(root: Path) -> None:
    stems = [f"train_{i:05d}" for i in range(1, 15)] + [f"test_{i:04d}" for i in range(1, 8)]
    write(root / "EmoLabel/list_patition_label.txt", "\n".join(f"{s}.jpg {i % 7 + 1}" for i, s in enumerate(stems)))
    for i, stem in enumerate(stems):
        draw(root / f"Image/original/{stem}.jpg", 60, 60, i)
        write(root / f"Annotation/boundingbox/{stem}_boundingbox.txt", "5.0 6.0 40.0 41.5")


def _affectnet_older(root: Path) -> None:
    points = ";".join(["10.5"] * 136)
    for part, word in ((0, "training"), (1, "validation")):
        lines = [f"{part}/{i}.jpg,3,4,40,41,{points},{i},-0.1,0.2" for i in range(11)]
        write(root / f"Manually_Annotated_file_lists/{word}.csv", "\n".join(lines) + "\n")
        for i in range(11):
            draw(root / f"Manually_Annotated_Images/{part}/{i}.jpg", 60, 60, 20 * part + i)


def _affectnet_newer(root: Path) -> None:
    for part in ("train_set", "val_set"):
        for i in range(16):
            draw(root / part / f"images/{3 * i}.jpg", 40, 40, i + len(part))
            write(root / part / f"annotations/{3 * i}_exp.npy", "")
            np.save(root / part / f"annotations/{3 * i}_exp.npy", np.array(str(i % 8)))


def _affectnet_listed(root: Path) -> None:
    lines = [f"{part},{part}/{i}.jpg,{i}" for part in ("train", "val") for i in range(8)]
    write(root / "affectnet.csv", "\n".join(("phase,img_path,label", *lines)))
    for i, line in enumerate(lines):
        draw(root / line.split(",")[1], 40, 40, i)


def _yolo(root: Path) -> None:
    write(root / "data.yaml", f"nc: 7\nnames: [{', '.join(sorted(NUMBERED))}]\n")
    for part in ("train", "valid"):
        for i in range(14):
            draw(root / part / f"images/{i}.jpg", 40, 40, i)
            write(root / part / f"labels/{i}.txt", f"{i % 7} 0.5 0.5 1 1\n")


def _expw(root: Path) -> None:
    lines = [f"woman {i // 2}.jpg {i % 2} 3 4 40 38 99.5 {i % 7}" for i in range(20)]
    write(root / "label/label.lst", "\n".join(lines) + "\n")
    for i in range(10):
        draw(root / f"image/origin/woman {i}.jpg", 60, 60, i)


def _ckplus(root: Path) -> None:
    for person in range(10):
        for number in (1, 2):
            name, stem = f"S{person:03d}/{number:03d}", f"S{person:03d}_{number:03d}"
            for frame in range(1, 5):
                value = 20 * person + 3 * frame + number
                write_picture(root / f"cohn-kanade-images/{name}/{stem}_{frame:08d}.png", value)
            write(root / f"Emotion/{name}/{stem}_00000004_emotion.txt", f"   {person % 7 + 1:.7e}\n")


def _ck48(root: Path) -> None:
    for i in range(21):
        write_picture(root / f"CK+48/{FOLDERS[i % 6]}/S{i % 10:03d}_001_{i:08d}.png", 10 * i)


def _ckextended(root: Path) -> None:
    lines = [f"{i % 8},{' '.join(map(str, picture(9 * i).ravel()))},Training" for i in range(24)]
    write(root / "ckextended.csv", "\n".join(("emotion,pixels,Usage", *lines)))


def _oulu_casia(root: Path) -> None:
    for person in range(1, 11):
        for number, word in enumerate(("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise")):
            path = root / f"PreProcess_Img/VL_Acropped/Strong/P{person:03d}/{word}"
            for frame in range(3):
                write_picture(path / f"{frame:03d}.jpeg", 20 * number + 9 * person + frame, width=32, height=24)


def _mmi(root: Path) -> None:
    for session in range(6):
        folder, stem = root / f"Sessions/{session}", f"S{session:03d}-{session:03d}"
        write_video(folder / f"{stem}.avi", [picture(30 * session + i, gray=False) for i in range(7)])
        write(folder / f"{stem}.xml", f'<r><Metatag Name="Emotion" Value="{session + 1}"/></r>')
        write(folder / "session.xml", '<session><track trackId="7" view="0" type="Video"/></session>')


def class_tree(root: Path) -> None:
    """Somebody's own pictures: eight to train, eight to test, of two classes."""
    for seed, (part, name) in enumerate(product(("train", "test"), ("awake", "asleep"))):
        for i, ending in enumerate(("jpg", "png", "bmp", "tif")):
            draw(root / part / name / f"{i}.{ending}", 30, 30, 4 * seed + i)


def _shards(root: Path) -> None:
    write_shards(root, shards=1)
    with tarfile.open(root / "test" / "1.tar", "w") as tar:
        add_member(tar, "x.png", png(picture()))
        add_member(tar, "x.cls", b"3")


def _parquet(root: Path) -> None:
    write_parquet(root, {split: official_table(split) for split in ("train", "test")})


def _arrow(root: Path) -> None:
    for part in ("train", "test"):
        write_arrow(root / part / "data-00000-of-00001.arrow", named_table(part))


class Layout(NamedTuple):
    """How a tree is written, the dataset it is of, and the order of its numbers where so few pictures do not tell."""

    build: Callable[[Path], object]
    dataset: str
    order: str | None = None


LAYOUTS = {
    "fer2013.csv": Layout(write_whole, "fer2013"),
    "fer2013 tables": Layout(write_tables, "fer2013"),
    "fer2013 packed": Layout(write_packed, "fer2013"),
    "fer2013 folders": Layout(lambda root: write_folders(root, PLACES), "fer2013"),
    "fer2013 shards": Layout(_shards, "fer2013"),
    "fer2013 parquet": Layout(_parquet, "fer2013", "official"),
    "fer2013 arrow": Layout(_arrow, "fer2013"),
    "ferplus": Layout(_ferplus, "ferplus"),
    "ferplus images": Layout(_ferplus_images, "ferplus"),
    "rafdb": Layout(_rafdb, "rafdb"),
    "affectnet older": Layout(_affectnet_older, "affectnet8"),
    "affectnet newer": Layout(_affectnet_newer, "affectnet8", "affectnet"),
    "affectnet.csv": Layout(_affectnet_listed, "affectnet8", "affectnet"),
    "yolo": Layout(_yolo, "affectnet7"),
    "expw": Layout(_expw, "expw"),
    "ckplus": Layout(_ckplus, "ckplus"),
    "ck48": Layout(_ck48, "ckplus"),
    "ckextended": Layout(_ckextended, "ckplus"),
    "oulu_casia": Layout(_oulu_casia, "oulu-casia"),
    "mmi": Layout(_mmi, "mmi"),
    "folder": Layout(class_tree, "folder"),
}


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 4, 64))):
        if changed:
            changed[random.randrange(len(changed))] = random.choice(
                (0, 10, 34, 44, 45, 127, 255, random.randrange(256))
            )
    return bytes(changed)


def _splice(data: bytes, random: Random) -> bytes:
    """Some bytes are repeated elsewhere, or are left out."""
    start, stop, at = sorted(random.randrange(len(data) + 1) for _ in range(3))
    return data[:start] + data[stop:] if random.random() < 0.3 else data[:at] + data[start:stop] + data[at:]


def _numbers(data: bytes, random: Random) -> bytes:
    """A digit becomes a number that no list expects."""
    at = [place for place, byte in enumerate(data[:20_000]) if 48 <= byte < 58]
    if not at:
        return _flip(data, random)
    place = random.choice(at)
    odd = random.choice(
        (b"-1", b"999999999999999999999", b"1e999", b"nan", b"", b'"', b"\xff\xfe", "٣".encode(), b"\0")
    )
    return data[:place] + odd + data[place + 1 :]


MUTATIONS = (_cut, _flip, _splice, _numbers, lambda data, random: b"", lambda data, random: random.randbytes(200))


def mutate(root: Path, random: Random, files: int = 1) -> list[str]:
    """Breaks some files below `root`; says how, for a test that fails."""
    there = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    said = []
    for path in random.sample(there, min(files, len(there))):
        number = random.randrange(len(MUTATIONS))
        path.write_bytes(MUTATIONS[number](path.read_bytes(), random))
        said.append(f"{path.relative_to(root)} by mutation {number}")
    return said
