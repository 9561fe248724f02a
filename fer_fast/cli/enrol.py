"""``fer-fast enrol``."""

import copy
import warnings
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor

from fer_fast.cli import fail
from fer_fast.cli.eval import opened
from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import print_table
from fer_fast.data import Drawn, OnDisk
from fer_fast.data.crossed import Crossed
from fer_fast.data.files import list_folders, list_images
from fer_fast.data.progress import watched
from fer_fast.errors import InputError
from fer_fast.serve.custom_classes import features_of
from fer_fast.serve.enrolment import (
    Enrolled,
    Unusable,
    check_classifier,
    check_names,
    check_threshold,
    enrol,
    read_photos,
)
from fer_fast.serve.model import FaceModel, load
from fer_fast.serve.rejection import Curve, leave_one_class_out, marked, rejection_curve, taken, write_curve
from fer_fast.train.checkpoint import check_checkpoint_free
from fer_fast.train.evaluation import match_classes
from fer_fast.train.folder import make_folder
from fer_fast.written import check_free

DESCRIPTION = """Add classes to a model from about ten photos of each, without training, or refresh classes; and choose
the threshold below which a face is unknown. All classes are written or, where anything is wrong, none. The classifier
has to tell classes by direction: lmcl, arcface or a-softmax."""
TELLING = 0.7  # AUROC below which a line says that no threshold does much
MOST_TAKEN = 0.05  # of the faces that were rightly named; above, a warning says what helps
_OF_CURVE = ("dataset", "root", "split", "fold", "order", "known", "unknown")


def run(argv: list[str]) -> int:
    """Enrol as the arguments say."""
    given = _parser().parse_args(argv)
    groups = _groups(given)
    _check(given, groups)
    model = load(given.checkpoint, given.device)
    check_classifier(model.trained)
    check_names(groups, model.classes, given.refresh)
    faces_of = _known_faces(given, model) if given.curve else None
    for _ in range(given.undo or 0):
        print(f"taken back: {model.undo()}")
    if groups:
        how = {"faces": given.faces, "refresh": given.refresh, "threshold": given.threshold}
        try:
            with watched("reading photos") as progress:
                told = enrol(model, groups, **how, progress=progress)
        except Unusable as error:
            return max(map(fail, error.lines))
        _show(told)
        if given.refresh is None and not given.curve:
            print("--curve FILE.html tells how many faces of the other classes these take, and a threshold")
    elif given.threshold is not None:
        model.threshold = given.threshold
    if given.out:
        written = model.save(given.out)
        threshold = "none: every face is named" if model.threshold is None else f"{model.threshold:g}"
        print(f"{len(model.classes)} classes, threshold {threshold}\ncheckpoint: {written}")
    if faces_of:
        _draw(given, model, faces_of)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="fer-fast enrol", description=DESCRIPTION)
    parser.add_argument("--checkpoint", metavar="F", required=True, help="checkpoint.safetensors or a run's folder")
    name = "a class and its photos, files or folders of them; as often as there are classes"
    parser.add_argument("--name", metavar=("NAME", "IMAGE"), nargs="+", action="append", default=[], help=name)
    parser.add_argument("--folder", metavar="DIR", help="classes: one subfolder of photos each")
    parser.add_argument("--out", metavar="F2", help="checkpoint to write: a folder, or a file ending in .safetensors")
    parser.add_argument("--force", action="store_true", help="replace files that are there, also the checkpoint read")
    faces = "largest: the largest face of each photo; whole: the photos are faces already (default: largest)"
    parser.add_argument("--faces", choices=("largest", "whole"), default="largest", help=faces)
    parser.add_argument(
        "--threshold", metavar="T", type=float, help="cosine below which a face is unknown (first: 0.6)"
    )
    refresh = "average classes that are there with their photos, which weigh ETA, above 0 to 1"
    parser.add_argument("--refresh", metavar="ETA", type=float, help=refresh)
    undo = "take back the last class that was enrolled or refreshed, or the last N"
    parser.add_argument("--undo", metavar="N", type=int, nargs="?", const=1, help=undo)
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    group = parser.add_argument_group(
        "the curve of known faces accepted against unknown ones rejected",
        "Unknown are, without --unknown, the faces of each known class in turn, whose direction is left out. Known are "
        "validation images of the run's dataset: test images are reported, and may not choose a threshold.",
    )
    group.add_argument("--curve", metavar="FILE.html", help="draw it, and write its numbers beside it as .csv")
    group.add_argument("--dataset", metavar="NAME", help="default: the dataset of the run")
    group.add_argument("--root", metavar="DIR", help="folder of the dataset (default: where it was for the run)")
    group.add_argument("--split", choices=("train", "val"), help="default: val")
    group.add_argument("--fold", type=int, help="which fold is the test split, for data that is cut by subject")
    group.add_argument("--order", metavar="NAME", help="which order the class numbers have, where nothing tells")
    group.add_argument(
        "--known", metavar="DIR", help="photos in place of a dataset: one subfolder a class of the model"
    )
    group.add_argument("--unknown", metavar="DIR", help="photos of faces of no class, also in subfolders")
    return parser


def _groups(given: Namespace) -> dict[str, list[Path]]:
    """Class -> its photos, as named one by one or by the folder."""
    named = [(name, [photo for path in paths for photo in _photos(path)]) for name, *paths in given.name]
    if given.folder:
        named += _subfolders(given.folder, "--folder")
    groups: dict[str, list[Path]] = {}
    for name, photos in named:
        if name in groups:
            raise InputError(f"the class {name!r} is given twice; give all of its photos at once")
        if not photos:
            raise InputError(f"{name} has no photos; about ten make a class")
        groups[name] = photos
    return groups


def _photos(path: str) -> list[Path]:
    return list_images(Path(path)) if Path(path).is_dir() else [Path(path)]


def _subfolders(path: str, option: str) -> list[tuple[str, list[Path]]]:
    folders = list_folders(_folder(path, option))
    if not folders:
        raise InputError(f"{option} {path} has no subfolders; there is one for each class")
    return [(folder.name, list_images(folder)) for folder in folders]


def _folder(path: str, option: str) -> Path:
    if not Path(path).is_dir():
        raise InputError(f"{option} {path} is no folder")
    return Path(path)


def _check(given: Namespace, groups: dict[str, list[Path]]) -> None:
    """Refuse options that contradict each other or would overwrite something, before anything is read."""
    changes = bool(groups) or given.undo is not None
    if given.undo is not None and (groups or given.refresh is not None):
        raise InputError("--undo takes classes back; enrol others by a second command")
    if given.undo is not None and given.undo < 1:
        raise InputError(f"undo is {given.undo}; allowed: 1 or more")
    if given.refresh is not None and not groups:
        raise InputError("--refresh does nothing without --name or --folder")
    if given.threshold is not None:
        check_threshold(given.threshold)
    if not (changes or given.curve or given.threshold is not None):
        raise InputError("nothing to do; --name NAME IMAGE... enrols a class, --curve FILE.html draws the curve")
    if not given.out and (changes or not given.curve):
        raise InputError("--out is needed: the checkpoint to write")
    if given.out and not (changes or given.threshold is not None):
        raise InputError("--out would be a mere copy; --name, --folder, --undo or --threshold changes something")
    if not given.curve and (idle := next((key for key in _OF_CURVE if getattr(given, key) is not None), None)):
        raise InputError(f"--{idle} does nothing without --curve")
    if given.known and (idle := next((key for key in _OF_CURVE[:5] if getattr(given, key) is not None), None)):
        raise InputError(f"--{idle} is of a dataset, and --known takes its place")
    if given.out:
        check_checkpoint_free(given.out, given.force)
    if given.curve:
        if Path(given.curve).suffix != ".html":
            raise InputError(f"--curve {given.curve}: a file whose name ends in .html is needed")
        for suffix in (".html", ".csv"):
            check_free(Path(given.curve).with_suffix(suffix), given.force)


def _show(told: list[Enrolled]) -> None:
    columns = ("class", "photos", "cosine", "left out: least", "mean", "recognised", "nearest class", "cosine")
    rows = (
        (
            each.name,
            str(each.photos),
            f"{each.cosine:.3f}",
            *(("-", "-", "-") if each.left_out is None else (*(f"{x:.3f}" for x in each.left_out), _share(each))),
            each.nearest,
            f"{each.nearest_cosine:.3f}",
        )
        for each in told
    )
    print_table(columns, rows, right=(*columns[1:6], columns[7]))


def _share(each: Enrolled) -> str:
    return f"{each.recognised} of {each.photos}"


def _known_faces(given: Namespace, model: FaceModel) -> Drawn | OnDisk | Crossed | list[tuple[str, list[Path]]]:
    """Where the curve's known faces come from, opened before anything is enrolled."""
    if given.unknown:
        _folder(given.unknown, "--unknown")
    if given.known:
        return _subfolders(given.known, "--known")
    return opened(given, copy.deepcopy(model.trained.config))


def _draw(given: Namespace, model: FaceModel, source: Drawn | OnDisk | Crossed | list[tuple[str, list[Path]]]) -> None:
    """Draw the curve of a model, enrolled classes included, and say what it suggests."""
    if isinstance(source, list):
        check_names((name for name, _ in source), model.classes, 1.0)
        features, labels = _photographed(given, model, dict(source), "reading known faces")
        of = f"the photos of {given.known}"
    else:
        dataset = source.split(given.split or "val")
        features, labels = features_of(model.trained, dataset), match_classes(dataset, model.classes)
        of = f"{dataset.split} of {given.dataset or model.trained.config.dataset}"
    cosines = model.cosines(features)
    if given.unknown:
        folder = Path(given.unknown)
        photos = [photo for each in (folder, *list_folders(folder)) for photo in list_images(each)]
        unknown, _ = _photographed(given, model, {"unknown faces": photos}, "reading unknown faces")
        best, chosen = cosines.max(1)
        curve = rejection_curve(best, chosen == labels, model.cosines(unknown).max(1).values)
        about = f"Known: {of}. Unknown: the photos of {given.unknown}."
    else:
        curve = rejection_curve(*leave_one_class_out(cosines, labels))
        about = f"Known: {of}. Unknown: the same, each class in turn, whose direction is left out."
    make_folder(Path(given.curve).parent)
    numbers = write_curve(Path(given.curve), curve, model.threshold, about)
    _suggest(curve, model.threshold, about)
    _say_taken(model, cosines, labels)
    print(f"curve: {given.curve}, {numbers}")


def _photographed(
    given: Namespace, model: FaceModel, groups: dict[str, list[Path]], doing: str
) -> tuple[Tensor, Tensor]:
    """Features and labels of photos; those that cannot be used are told and left out."""
    with watched(doing) as progress:
        photos, unusable = read_photos(model, groups, given.faces, progress)
    for line in unusable:
        warnings.warn(f"{line}; left out", stacklevel=2)
    numbers = [model.classes.index(name) if name in model.classes else -1 for name in photos]
    counts = torch.tensor([len(each.names) for each in photos.values()])
    return torch.cat([each.features for each in photos.values()]), torch.tensor(numbers).repeat_interleave(counts)


def _say_taken(model: FaceModel, cosines: Tensor, labels: Tensor) -> None:
    """Of a model with enrolled classes, what these take of the others."""
    enrolled = sum(each["op"] == "add" for each in model.trained.state.get("enrolled", ()))
    trained = len(model.classes) - enrolled
    if not enrolled or not (labels < trained).any():
        return
    alone, among_all, shares = taken(cosines, labels, trained)
    names = model.classes[trained:]
    of_each = ", ".join(f"{name} {100 * share:.1f} %" for name, share in zip(names, shares.tolist(), strict=True))
    print(f"of the faces of the {trained} classes trained on, enrolled classes take: {of_each}")
    print(f"rightly named, whatever the cosine: {100 * among_all:.1f} %; {100 * alone:.1f} % without those enrolled")
    if alone - among_all > MOST_TAKEN:
        warnings.warn(
            "the enrolled classes take faces of the others, whose weights lie further from all features than a mean of "
            "features does; --refresh 1 with about ten photos of each other class makes all directions means",
            stacklevel=2,
        )


def _suggest(curve: Curve, threshold: float | None, about: str) -> None:
    print(f"\n{about}")
    rows = (
        (name, f"{mark.threshold:.3f}", *(f"{100 * share:.1f} %" for share in mark[1:]))
        for name, mark in marked(curve, threshold).items()
    )
    columns = ("threshold", "cosine", "known accepted", "rightly named", "unknown rejected")
    print_table(columns, rows, right=columns[1:])
    if curve.auroc < TELLING:
        print(f"AUROC {curve.auroc:.4f}: cosines hardly tell known faces from unknown ones, so no threshold does much")
    else:
        print(f"AUROC {curve.auroc:.4f}; suggested: --threshold {curve.equal_error.threshold:.3f} (equal error)")
