"""``fer-fast predict``."""

import csv
import json
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from fer_fast.cli import fail
from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import print_table
from fer_fast.data.progress import watched
from fer_fast.errors import InputError, printable
from fer_fast.serve.drawing import annotate
from fer_fast.serve.inputs import TABLE, beside, collect, targets
from fer_fast.serve.model import FaceModel, NamedFace, Seen, load
from fer_fast.serve.pictures import WHICH, ahead
from fer_fast.serve.video import RATE, Film, Followed, Sampled, watch
from fer_fast.suggest import one_of
from fer_fast.train.shown import counted

_LONG = 100  # faces that are listed on the terminal where they are also written
_DRAWN = 8  # pictures whose faces are named and not drawn yet


def run(argv: list[str]) -> int:
    """Predict as the arguments say."""
    given = _parser().parse_args(argv)
    _check(given)
    inputs = collect(given.paths)
    goals = targets(inputs, given.paths, Path(given.out)) if given.out is not None else {}
    status = max((_broken(given, path, line) for path, line in inputs.faults.items()), default=0)
    if inputs.ignored:
        _say("passed over in folders; " + ", ".join(f"{what}: {n}" for what, n in sorted(inputs.ignored.items())))
    if inputs.pictures or inputs.videos:
        model = _model(given)
        if goals:
            Path(given.out).mkdir(parents=True, exist_ok=True)
        status = max(status, _pictures(model, inputs.pictures, given, goals))
        status = max(status, _videos(model, inputs.videos, given, goals))
    return status


def _parser() -> Parser:
    parser = Parser(
        prog="fer-fast predict",
        description="Name the expressions of the faces in pictures, folders of pictures and videos. Faces are found "
        "and aligned; where none is found in a picture, its central square is used and the table says so. In videos "
        "faces are followed, and their scores averaged over time.",
    )
    parser.add_argument("--checkpoint", metavar="F", required=True, help="checkpoint.safetensors or a run's folder")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="image files, folders (all images below), videos")
    parser.add_argument("--out", metavar="DIR", help="write annotated pictures and videos there, and tables as csv")
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON a picture (a frame), as they are done"
    )
    parser.add_argument("--faces", default="all", metavar="WHICH", help="all, largest or whole (default: all)")
    parser.add_argument("--threshold", type=float, metavar="T", help="a face whose best cosine is not above is unknown")
    sampling = parser.add_mutually_exclusive_group()
    sampling.add_argument("--rate", type=float, metavar="FPS", help="frames a second of videos (default: 5)")
    sampling.add_argument("--every", type=float, metavar="SECONDS", help="seconds from frame to frame of videos")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    return parser


def _check(given: Namespace) -> None:
    """Refuse what no model is needed to refuse; `given.rate` is frames a second afterwards."""
    one_of(given.faces, WHICH, "--faces")
    for name in ("rate", "every"):
        value = getattr(given, name)
        if value is not None and not 1e-3 <= value <= 1e3:
            raise InputError(f"--{name} is {value:g}; it is a number from 0.001 to 1000")
    given.rate = 1 / given.every if given.every is not None else given.rate or RATE
    if given.threshold is not None and not -1 <= given.threshold <= 1:
        raise InputError(f"--threshold is {given.threshold:g}; a cosine lies between -1 and 1")


def _model(given: Namespace) -> FaceModel:
    model = load(given.checkpoint, given.device)
    if given.threshold is not None:
        if not model.trained.recogniser.classifier.directional:
            name = model.trained.recogniser.classifier.name
            raise InputError(
                f"--threshold is of cosines, which the classifier of this checkpoint, {name}, does not give"
            )
        model.threshold = given.threshold
    return model


def _pictures(model: FaceModel, files: list[str], given: Namespace, goals: dict[str, Path]) -> int:
    """Name the faces of pictures, and say what they are as they are done; the exit status."""
    if not files:
        return 0
    rows: list[tuple[str | None, ...]] = []
    try:
        return _name(model, files, given, goals, rows)
    finally:  # interrupted too
        if len(rows) > _LONG and goals:
            print_table(("class", "faces"), _counts(rows), right=("faces",))
            print(f"a row a face: {Path(given.out) / TABLE}")
        elif rows:
            columns = ("file", "class", "score", "face", *(("cosine",) if rows[0][-1] is not None else ()))
            print_table(columns, (row[: len(columns)] for row in rows), right=("score", "cosine"))


def _counts(rows: list[tuple[str | None, ...]]) -> Iterator[tuple[str, str]]:
    """Faces by class, the most first, and of how many pictures."""
    for name, count in Counter(row[1] for row in rows).most_common():
        yield str(name), str(count)
    yield f"of all, in {len({row[0] for row in rows})} pictures", str(len(rows))


def _name(model: FaceModel, files: list[str], given: Namespace, goals: dict[str, Path], rows: list[Any]) -> int:
    """Write and print what each picture shows; the rows of a table go to `rows`."""
    status, header = 0, ("file", *_BOX, "found", *_scored(model))

    def drawn(seen: Seen) -> None:
        if seen.error is None:
            annotate(seen.picture, goals[seen.picture], seen.faces, model.classes)

    with _listed(Path(given.out) / TABLE if goals else None, header) as write, watched("predicting") as show:
        show(0, len(files))
        named = model.see(files, faces=given.faces, progress=lambda done: show(done, len(files)))
        for seen, drawing in ahead(named, drawn, _DRAWN) if goals else ((seen, None) for seen in named):
            if drawing is not None:
                drawing.result()
            if seen.error is not None:
                status = _broken(given, seen.picture, seen.error)
                continue
            for face in seen.faces:
                write((printable(seen.picture), *face.box, face.found, *_numbers(face)))
            if given.json:
                faces = [_fields(face) for face in seen.faces]
                _print_json({"file": seen.picture, "size": seen.size, "faces": faces})
            else:
                rows += [_row(seen.picture, face, given.faces) for face in seen.faces]
    return status


def _videos(model: FaceModel, files: list[str], given: Namespace, goals: dict[str, Path]) -> int:
    """Name and follow the faces of videos; the exit status."""
    status, rows = 0, []
    try:
        for path in files:
            tracks: dict[int, _Track] = {}
            try:
                _video(model, path, given, goals.get(path), tracks)
            except InputError as error:
                status = _broken(given, path, str(error))
            finally:
                rows += [(path, str(number), *track.row()) for number, track in sorted(tracks.items())]
    finally:
        if rows and not given.json:
            columns = ("file", "track", "first", "last", "class", "mean score")
            print_table(columns, rows, right=("track", "first", "last", "mean score"))
    return status


def _video(model: FaceModel, path: str, given: Namespace, goal: Path | None, tracks: dict[int, "_Track"]) -> None:
    sampled = Sampled(path, given.rate)
    _say(f"{path}: {sampled.rate:.3g} frames a second, of {sampled.own:.3g}")
    if goal is not None:
        goal.parent.mkdir(parents=True, exist_ok=True)
    header = ("frame", "seconds", "track", *_BOX, *_scored(model))
    with (
        _listed(goal and beside(goal), header) as write,
        Film(goal, sampled.rate, model.classes) if goal is not None else nullcontext() as film,
        watched("predicting") as show,
    ):
        named = watch(model, sampled, faces=given.faces, progress=lambda done: show(done, sampled.expected or None))
        for followed in named:
            if film is not None:
                film.add(followed)
            _follow(followed, tracks, write)
            if given.json:
                _print_json(_moment(path, followed))
    if not sampled.frames:
        if goal is not None:
            beside(goal).unlink()
        raise InputError(f"{path}: a video without a frame that can be read")
    if line := sampled.cut_short():
        _say(line)
    if not tracks:
        _say(f"{path}: no face was found in {counted(sampled.taken, 'frame')}")


class _Track:
    """What there is to say of a face that was followed."""

    def __init__(self, seconds: float):
        self.first = self.last = seconds
        self.labels: Counter[str] = Counter()
        self.score = 0.0

    def add(self, seconds: float, face: NamedFace) -> None:
        self.last = seconds
        self.labels[face.label] += 1
        self.score += face.score

    def row(self) -> tuple[str, ...]:
        """First and last second, the class of most frames, the mean of the scores shown."""
        (label, _), count = self.labels.most_common(1)[0], self.labels.total()
        return f"{self.first:.1f}", f"{self.last:.1f}", label, f"{self.score / count:.3f}"


def _follow(followed: Followed, tracks: dict[int, _Track], write: Callable[[Any], Any]) -> None:
    frame = followed.frame
    for number, face in zip(followed.numbers, followed.faces, strict=True):
        tracks.setdefault(number, _Track(frame.seconds)).add(frame.seconds, face)
        write((frame.number, f"{frame.seconds:.3f}", number, *face.box, *_numbers(face)))


def _moment(path: str, followed: Followed) -> dict[str, Any]:
    """A frame as JSON has it."""
    frame = followed.frame
    faces = [{"track": number, **_fields(face)} for number, face in zip(followed.numbers, followed.faces, strict=True)]
    about = {"file": path, "frame": frame.number, "seconds": round(frame.seconds, 3)}
    return {**about, "size": frame.image.shape[1::-1], "faces": faces}


def _fields(face: NamedFace) -> dict[str, Any]:
    """A face as JSON has it."""
    return {
        "class": face.label,
        "score": face.score,
        "cosine": face.cosine,
        "box": face.box,
        "found": face.found,
        "scores": face.scores,
    }


def _row(path: str, face: NamedFace, which: str) -> tuple[str | None, ...]:
    """A face in the table on the terminal."""
    found = "whole" if which == "whole" else "found" if face.found else "not found"
    return path, face.label, f"{face.score:.3f}", found, None if face.cosine is None else f"{face.cosine:.3f}"


_BOX = ("left", "top", "width", "height")


def _scored(model: FaceModel) -> tuple[str, ...]:
    return ("class", "score", "cosine", *(f"score_{name}" for name in model.classes))


def _numbers(face: NamedFace) -> tuple[Any, ...]:
    cosine = "" if face.cosine is None else f"{face.cosine:.6f}"
    return face.label, f"{face.score:.6f}", cosine, *(f"{score:.6f}" for score in face.scores.values())


@contextmanager
def _listed(path: Path | None, header: tuple[str, ...]) -> Iterator[Callable[[Any], Any]]:
    """What writes rows of a csv; nothing where there is no path."""
    if path is None:
        yield lambda row: None
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        yield writer.writerow


def _broken(given: Namespace, path: str, line: str) -> int:
    """Say what could not be read, as it happens; the exit status."""
    if given.json:
        _print_json({"file": path, "error": printable(" ".join(line.split()))})
    return fail(line)


def _print_json(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def _say(line: str) -> None:
    print(f"fer-fast: {printable(line)}", file=sys.stderr)
