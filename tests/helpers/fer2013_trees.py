"""Small copies of FER2013 in the forms people have, drawn: 21 training, 7 public and 7 private images."""

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_fast.data import CLASSES, load_dataset

NUMBERED = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
FOLDERS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
ALPHABETICAL = ("angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
USAGE = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
COUNTS = {"train": 21, "val": 7, "test": 7}
SPLITS = tuple(COUNTS)

SPLIT_OF_WORD = {"train": "train", "publicTest": "val", "privateTest": "test"}
PLACES = {split: split for split in SPLITS}

Row = tuple[int, np.ndarray]


def rows(split: str) -> list[Row]:
    """(official number of the class, image) of a split; images differ in every pixel between splits."""
    rng = np.random.default_rng(SPLITS.index(split))
    return [(i % 7, rng.integers(0, 256, (48, 48), dtype=np.uint8)) for i in range(COUNTS[split])]


def contents(root: Path, split: str, **options) -> set[tuple[str, bytes]]:
    """(class, pixels) of every image of a split, as loaded."""
    dataset = load_dataset("fer2013", root, split=split, **options)
    assert (dataset.classes, dataset.split) == (CLASSES[:7], split)
    return {(CLASSES[y], x.numpy().tobytes()) for x, y in zip(dataset.images, dataset.labels.tolist(), strict=True)}


def expected(*splits: str) -> set[tuple[str, bytes]]:
    """(class, pixels) of every image of some splits, as drawn."""
    return {(NUMBERED[label], image.tobytes()) for split in splits for label, image in rows(split)}


def pixels(image: np.ndarray) -> str:
    return " ".join(map(str, image.ravel().tolist()))


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def write_csv(path: Path, header: Sequence[str], lines: Sequence[Sequence[object]], **form) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=form.pop("encoding", "utf-8")) as file:
        csv.writer(file, **form).writerows([header, *lines])
    return path


def write_whole(root: Path, name: str = "fer2013.csv", splits: Sequence[str] = SPLITS, **form) -> Path:
    """One table with the column Usage; icml_face_data.csv has its own order of columns, and spaces before names."""
    lines = [(label, pixels(image), USAGE[split]) for split in splits for label, image in rows(split)]
    if name == "icml_face_data.csv":
        lines = [(label, usage, text) for label, text, usage in lines]
        return write_csv(root / name, ("emotion", " Usage", " pixels"), lines, **form)
    return write_csv(root / name, ("emotion", "pixels", "Usage"), lines, **form)


def write_tables(root: Path, splits: Sequence[str] = SPLITS) -> None:
    """train.csv and so on; those of the competition have no Usage."""
    for split in splits:
        lines = [(label, pixels(image)) for label, image in rows(split)]
        write_csv(root / f"{split}.csv", ("emotion", "pixels"), lines)


def write_packed(root: Path) -> Path:
    inner = write_whole(root / "inner").rename(root / "inner.csv")
    with tarfile.open(root / "fer2013.tar.gz", "w:gz") as tar:
        add_member(tar, "fer2013/README", b"fer2013.csv")
        tar.add(inner, "fer2013/fer2013.csv")
    inner.unlink()
    (root / "inner").rmdir()
    return root / "fer2013.tar.gz"


def write_folders(root: Path, place: dict[str, str], names: str = "{usage}_{number}.png") -> None:
    """`place`: split -> folder it is put in; `names` of files, from the usage and the row in the csv."""
    number = 0
    for split in SPLITS:
        for label, image in rows(split):
            if split in place:
                path = root / place[split] / FOLDERS[label] / names.format(usage=USAGE[split], number=number)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(image))
            number += 1


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_shards(root: Path, splits: Sequence[str] = ("train", "test"), shards: int = 4) -> None:
    """A WebDataset with numbers in alphabetical order."""
    order = [FOLDERS.index(name) for name in sorted(FOLDERS)]  # alphabetical number -> official number
    for split in splits:
        (root / split).mkdir(parents=True)
        for shard in range(shards):
            with tarfile.open(root / split / f"{shard}.tar", "w") as tar:
                for i, (label, image) in enumerate(rows(split)[shard::shards]):
                    add_member(tar, f"s{shard}{i}.png", png(image))
                    add_member(tar, f"s{shard}{i}.cls", str(order.index(label)).encode())
        (root / split / "nshards.txt").write_text(f"{shards}\n")
    (root / "classnames.txt").write_text("\n".join(ALPHABETICAL) + "\n")


def hugging_face(names: Sequence[str]) -> dict[bytes, bytes]:
    """Metadata of a table whose column "label" has these names."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def official_table(split: str) -> pa.Table:
    """`img_bytes, labels` with the official numbers and no names."""
    return pa.table(
        {"img_bytes": [png(image) for _, image in rows(split)], "labels": [label for label, _ in rows(split)]}
    )


def named_table(split: str) -> pa.Table:
    """`image, label` with alphabetical numbers whose names are in the metadata."""
    order = sorted(FOLDERS)
    images = [{"bytes": png(image), "path": None} for _, image in rows(split)]
    labels = [order.index(FOLDERS[label]) for label, _ in rows(split)]
    return pa.table({"image": images, "label": labels}).replace_schema_metadata(hugging_face(order))


def write_parquet(root: Path, tables: dict[str, pa.Table], rows_each: int = 4) -> None:
    (root / "data").mkdir(parents=True)
    for word, table in tables.items():
        pq.write_table(table, root / "data" / f"{word}-00000-of-00001.parquet", row_group_size=rows_each)


def write_arrow(path: Path, table: pa.Table, rows_each: int = 4, stream: bool = True) -> Path:
    """As `save_to_disk` writes it: a stream of batches; older versions wrote a file of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, kind(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_each)
    return path
