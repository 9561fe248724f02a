"""``fer-fast predict``."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from fer_fast.cli import fail
from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import print_table
from fer_fast.data.pictures import Files
from fer_fast.data.prepare import Preparation, Prepared, prepare
from fer_fast.errors import InputError
from fer_fast.train.evaluation import Trained, load_trained, predict

BATCH = 64  # photos whose crops are in memory at once


def run(argv: list[str]) -> int:
    """Predict as the arguments say."""
    parser = Parser(
        prog="fer-fast predict",
        description="Name the expression in photos. The largest face is found and aligned; where none is found, the "
        "central square of the photo is used and the table says so.",
    )
    parser.add_argument("--checkpoint", metavar="F", required=True, help="checkpoint.safetensors or a run's folder")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument("--json", action="store_true", help="print JSON with the scores of all classes")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    given = parser.parse_args(argv)
    trained = load_trained(given.checkpoint, given.device)
    broken: list[str] = []
    rows = list(predict_photos(trained, given.images, broken))
    if given.json:
        print(json.dumps(rows, indent=1))
    elif rows:
        _show(rows)
    return max((fail(line) for line in broken), default=0)


def _show(rows: list[dict[str, Any]]) -> None:
    lines = (
        (row["file"], row["class"], f"{row['score']:.3f}", "found" if row["face_found"] else "not found")
        for row in rows
    )
    print_table(("file", "class", "score", "face"), lines, right=("score",))


def predict_photos(trained: Trained, paths: list[str], broken: list[str]) -> Iterator[dict[str, Any]]:
    """One dict for each photo: file, class, score, face_found, box and the scores of all classes.

    What cannot be read is left out; a line for each goes to `broken`.
    """
    augment, how = trained.config.augment, trained.preparation()
    for first in range(0, len(paths), BATCH):
        part, faces = [], []
        for path in paths[first : first + BATCH]:
            try:
                faces.append(prepared(path, how))
                part.append(path)
            except InputError as error:
                broken.append(str(error))
        if not part:
            continue
        images = torch.from_numpy(np.stack([face.pixels for face in faces])).permute(0, 3, 1, 2).contiguous()
        _, scores = predict(trained.recogniser, images, augment, trained.hardware, crops=augment.crops)
        for path, face, row in zip(part, faces, scores, strict=True):
            best = int(row.argmax())
            yield {
                "file": path,
                "class": trained.classes[best],
                "score": float(row[best]),
                "face_found": face.found,
                "box": list(face.box),
                "scores": dict(zip(trained.classes, row.tolist(), strict=True)),
            }


def prepared(path: str, how: Preparation) -> Prepared:
    """An image file as the model takes it; the errors name it."""
    try:
        return prepare(Files([path]).read(0, gray=how.channels == 1), None, how)
    except (InputError, OSError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
