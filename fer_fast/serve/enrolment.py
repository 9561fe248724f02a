"""Classes enrolled in a model from a few photos, without training (Lu & Wu 2022, section 3).

A class is a direction: c = normalise(mean of x_i / ‖x_i‖) over the features x_i of its photos (equation 4), one more
row of the classifier's weight. A class that is there is refreshed by new photos: c ← normalise((1 - η)·c/‖c‖ + η·mean).
Rows that are written have length one: a classifier that tells classes by direction does not look at lengths. The state
keeps a journal of what was done and what undoes it.
"""

import base64
import hashlib
import math
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_fast import losses
from fer_fast.data.prepare import Prepared
from fer_fast.errors import InputError, printable
from fer_fast.registry import available
from fer_fast.serve.pictures import BATCH, Picture, ahead, cut, pixels, several
from fer_fast.suggest import one_of
from fer_fast.train.evaluation import Trained

if TYPE_CHECKING:
    from fer_fast.serve.model import FaceModel

UNKNOWN = "unknown"  # what a face is called where no cosine exceeds the threshold
NO_CLASS = -1  # its number
THRESHOLD = 0.6  # the paper's
FEWEST = 3  # photos; of fewer a warning says that they tell little
LONGEST = 64  # characters of a name
SHORTEST = 1e-6  # length of a sum of directions that has a direction itself


class Unusable(InputError):
    """Photos that cannot be used.

    Attributes:
        lines: one for each, which names it.
    """

    def __init__(self, lines: list[str]):
        super().__init__("; ".join(lines))
        self.lines = lines


class Enrolled(NamedTuple):
    """A class that was enrolled, and what its n photos tell of it.

    Attributes:
        name: of the class.
        photos: n.
        cosine: mean of the photos' cosines with its direction.
        left_out: least and mean cosine of a photo with the direction of the others; None for a single photo.
        recognised: photos that are nearer to the direction of the others than to any other class.
        nearest: the other class whose direction is nearest.
        nearest_cosine: its cosine with the direction of this one.
    """

    name: str
    photos: int
    cosine: float
    left_out: tuple[float, float] | None
    recognised: int
    nearest: str
    nearest_cosine: float


class Photos(NamedTuple):
    """The features (n, d) of n photos, what to call each, and the SHA-256 of the pixels that the model took of each."""

    features: Tensor
    names: list[str]
    digests: list[str]


# Directions


def mean_directions(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Means of x_i / ‖x_i‖ over y_i = k: (classes, d), the shorter the less the directions agree.

    Args:
        features: (n, d).
        labels: int64 (n,), 0 to classes - 1; each comes at least once.
        classes: how many there are.
    """
    sums = features.new_zeros(classes, features.shape[1]).index_add_(0, labels, F.normalize(features, dim=1))
    return sums / torch.bincount(labels, minlength=classes).unsqueeze(1)


def prototypes(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The directions of classes, c_k = normalise(mean of x_i / ‖x_i‖ over y_i = k) (equation 4): (classes, d)."""
    return F.normalize(mean_directions(features, labels, classes), dim=1)


def recognise(features: Tensor, directions: Tensor, threshold: float) -> Tensor:
    """The class of the largest cosine where that exceeds the threshold, else `NO_CLASS`: int64 (n,).

    Args:
        features: (n, d).
        directions: (C, d) of length one.
        threshold: for the cosine.
    """
    best, chosen = (F.normalize(features, dim=1) @ directions.T).max(1)
    return chosen.where(best > threshold, NO_CLASS)


# What is asked for


def check_classifier(trained: Trained) -> None:
    """Refuse a model whose classifier does not tell classes by direction."""
    if not trained.recogniser.classifier.directional:
        rows = [row.name for row in available() if getattr(getattr(losses, row.cls), "directional", False)]
        raise InputError(
            f"custom classes are told by direction, as {', '.join(rows)} do; the classifier of this checkpoint is "
            f"{trained.recogniser.classifier.name}"
        )


def check_threshold(threshold: float) -> None:
    """Refuse what no cosine can be compared with."""
    if not -1 <= threshold < 1:
        raise InputError(f"threshold is {threshold}; allowed: a cosine, -1 or more and below 1")


def check_names(names: Iterable[str], classes: tuple[str, ...], refresh: float | None) -> None:
    """Refuse names that classes cannot have, or that are to be refreshed and are not there, and an η out of range."""
    if refresh is not None and not 0 < refresh <= 1:
        raise InputError(f"refresh is {refresh}; allowed: above 0, to 1")
    taken = {_folded(name): name for name in classes}
    for name in names:
        if refresh is not None:
            one_of(name, classes, "refresh: class")
        elif not name.isprintable() or name != name.strip() or not 1 <= len(name) <= LONGEST:
            raise InputError(
                f"the name of a class is {printable(name)[:LONGEST]!r}; allowed: 1 to {LONGEST} printable characters, "
                "the first and last no blank"
            )
        elif _folded(name) == UNKNOWN:
            raise InputError(f"a class cannot be called {name!r}: that is what faces of no class are called")
        elif _folded(name) in taken:
            same = taken[_folded(name)]
            raise InputError(f"there is a class {same!r} already; refresh adds to it, or choose another name")
        taken[_folded(name)] = name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


# Enrolling and undoing


def enrol(
    model: "FaceModel",
    groups: Mapping[str, Picture | Iterable[Picture]],
    *,
    faces: Literal["largest", "whole"] = "largest",
    refresh: float | None = None,
    threshold: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Enrolled]:
    """Enrol classes in a model, or refresh them; all of them or, where anything is wrong, none.

    Args:
        model: which is changed.
        groups: name of a class -> its photos.
        faces, refresh: as for `FaceModel.enrol`.
        threshold: what becomes the model's; None keeps it, or takes the paper's where there is none.
        progress: called with photos done and all of them.

    Raises:
        InputError: what `FaceModel.enrol` refuses; `Unusable` names every photo that cannot be used.
    """
    check_classifier(model.trained)
    check_names(groups, model.classes, refresh)
    photos, unusable = read_photos(model, groups, faces, progress)
    if unusable:
        raise Unusable(unusable)
    weight = model.trained.recogniser.classifier.weight.detach().cpu()
    numbers, rows = _rows(model, photos, weight, refresh)
    changed = torch.cat((weight, weight.new_zeros(len(photos) if refresh is None else 0, weight.shape[1])))
    changed[numbers] = F.normalize(rows, dim=1).to(weight.dtype)
    before = [None if refresh is None else weight[number] for number in numbers.tolist()]
    kept = THRESHOLD if model.threshold is None else model.threshold
    threshold = kept if threshold is None else threshold
    _journalled(model, photos, refresh, before, threshold)
    _give_rows(model, changed, model.classes if refresh is not None else (*model.classes, *groups))
    told = [_told(model, number, each.features) for number, each in zip(numbers.tolist(), photos.values(), strict=True)]
    for each, its in zip(told, photos.values(), strict=True):
        _warn(each, its, threshold)
    return told


def _rows(
    model: "FaceModel", photos: Mapping[str, Photos], weight: Tensor, refresh: float | None
) -> tuple[Tensor, Tensor]:
    """The classes' numbers, and their directions before they are normalised, float64."""
    features = torch.cat([each.features for each in photos.values()]).double()
    labels = torch.arange(len(photos)).repeat_interleave(torch.tensor([len(each.names) for each in photos.values()]))
    rows = mean_directions(features, labels, len(photos))
    if refresh is None:
        numbers = torch.arange(len(weight), len(weight) + len(photos))
    else:
        numbers = torch.tensor([model.classes.index(name) for name in photos])
        rows = (1 - refresh) * F.normalize(weight[numbers].double(), dim=1) + refresh * rows
    for name, length in zip(photos, rows.norm(dim=1).tolist(), strict=True):
        if not length > SHORTEST:  # nor where the old direction was none
            raise InputError(f"the photos of {name} give no direction: the features cancel, or are no numbers")
    return numbers, rows


def undo(model: "FaceModel") -> str:
    """Take back the last class that was enrolled or refreshed in a model; gives its name.

    Raises:
        InputError: there is none, or the journal of the checkpoint is damaged.
    """
    journal = model.trained.state.get("enrolled") or []
    if not journal:
        raise InputError("nothing to undo: no class was enrolled in this checkpoint")
    weight, classes = model.trained.recogniser.classifier.weight.detach().cpu(), model.classes
    try:
        last = journal[-1]
        name, threshold = last["name"], last["threshold"]
        if last["op"] == "add":
            weight, classes = weight[:-1], classes[:-1]
        else:
            row = np.frombuffer(base64.b64decode(last["before"]), "<f4").astype(np.float32).reshape(weight.shape[1])
            weight = weight.clone()
            weight[classes.index(name)] = torch.from_numpy(row)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the journal of enrolled classes is damaged: {' '.join(str(error).split())}") from None
    state = {**model.trained.state, "enrolled": journal[:-1]}
    if len(journal) == 1:
        del state["enrolled"]
    model.trained, model.threshold = replace(model.trained, state=state), threshold
    _give_rows(model, weight, classes)
    return name


def _journalled(
    model: "FaceModel",
    photos: Mapping[str, Photos],
    refresh: float | None,
    before: list[Tensor | None],
    threshold: float,
) -> None:
    """Note in the model's state what is done to it, an entry a class, with what `undo` needs."""
    date, entries = datetime.now(UTC).isoformat(timespec="seconds"), []
    for (name, its), row in zip(photos.items(), before, strict=True):
        entry: dict[str, Any] = {"op": "add" if row is None else "refresh", "name": name, "samples": len(its.names)}
        entry |= {"eta": refresh, "threshold": model.threshold, "date": date}
        entry["digest"] = hashlib.sha256("".join(sorted(its.digests)).encode()).hexdigest()
        if row is not None:
            entry["before"] = base64.b64encode(row.numpy().astype("<f4").tobytes()).decode()
        entries.append(entry)
        model.threshold = threshold
    state = model.trained.state
    model.trained = replace(model.trained, state={**state, "enrolled": [*state.get("enrolled", ()), *entries]})


def _give_rows(model: "FaceModel", weight: Tensor, classes: tuple[str, ...]) -> None:
    """Let the classifier tell these classes by these rows (C, d)."""
    trained, classifier = model.trained, model.trained.recogniser.classifier
    old = classifier.weight
    classifier.weight = nn.Parameter(weight.to(old.device), requires_grad=old.requires_grad)
    classifier.num_classes = len(classes)
    model.trained = replace(trained, classes=classes, state={**trained.state, "classes": list(classes)})


# Photos


def read_photos(
    model: "FaceModel",
    groups: Mapping[str, Picture | Iterable[Picture]],
    faces: Literal["largest", "whole"],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Photos], list[str]]:
    """The features of the photos of each class.

    Returns:
        Name of a class -> its photos; and a line for each that is left out: it cannot be read, no face was found in it,
        or its features have no direction.

    Raises:
        InputError: a class is given no photos.
    """
    one_of(faces, ("largest", "whole"), "faces")
    how = model.trained.preparation()

    def read(job: tuple[str, str, Picture]) -> Prepared:
        return cut(pixels(job[2], gray=how.channels == 1), how, faces)[0]

    jobs, unusable, cuts = _jobs(groups), [], []
    found: list[tuple[str, str, str]] = []  # class, what the photo is called, digest
    parts = [torch.zeros(0, model.trained.recogniser.encoder.feature_dim)]
    for done, ((name, shown, _), future) in enumerate(ahead(jobs, read), 1):
        try:
            face = future.result()
            if not face.found:
                raise InputError("no face was found; faces whole takes pictures that are faces already")
            cuts.append(face)
            found.append((name, shown, hashlib.sha256(face.pixels.tobytes()).hexdigest()))
        except InputError as error:
            line = printable(str(error))
            unusable.append(line if line.startswith(shown) else f"{shown}: {line}")
        if len(cuts) == BATCH:
            parts.append(model.score(cuts)[0])
            cuts = []
        progress(done, len(jobs))
    features = torch.cat((*parts, model.score(cuts)[0]))
    lengths = features.double().norm(dim=1)
    fine = (lengths.isfinite() & (lengths > SHORTEST)).tolist()
    unusable += [f"{found[i][1]}: its features have no direction" for i in range(len(found)) if not fine[i]]
    rows = {name: [i for i, each in enumerate(found) if each[0] == name and fine[i]] for name in groups}
    return {
        name: Photos(features[its], [found[i][1] for i in its], [found[i][2] for i in its])
        for name, its in rows.items()
    }, unusable


def _jobs(groups: Mapping[str, Picture | Iterable[Picture]]) -> list[tuple[str, str, Picture]]:
    """Class, what the photo is called, and the photo."""
    jobs = []
    for name, pictures in groups.items():
        before = len(jobs)
        for number, picture in enumerate(several(pictures), 1):
            file = isinstance(picture, str | os.PathLike)
            jobs.append((name, printable(os.fspath(picture)) if file else f"photo {number} of {name}", picture))
        if len(jobs) == before:
            raise InputError(f"{name} has no photos; about ten make a class")
    return jobs


# What is said


def _told(model: "FaceModel", number: int, features: Tensor) -> Enrolled:
    """What the photos (n, d) of a class tell of its direction, beside all others of the model."""
    directions = F.normalize(model.trained.recogniser.classifier.weight.detach().cpu().double(), dim=1)
    unit = F.normalize(features.double(), dim=1)
    left_out = (unit * F.normalize(unit.sum(0) - unit, dim=1)).sum(1)
    cosines, beside = unit @ directions.T, directions @ directions[number]
    own = cosines[:, number].mean()
    cosines[:, number], beside[number] = -math.inf, -math.inf
    nearest = int(beside.argmax())
    several_photos = len(unit) > 1
    return Enrolled(
        model.classes[number],
        len(unit),
        float(own),
        (float(left_out.min()), float(left_out.mean())) if several_photos else None,
        int((left_out > cosines.max(1).values).sum()) if several_photos else 0,
        model.classes[nearest],
        float(beside[nearest]),
    )


def _warn(told: Enrolled, photos: Photos, threshold: float) -> None:
    """Say what makes a class that will not do well."""
    if told.photos < FEWEST:
        _say(f"{told.name} is enrolled by {told.photos} photo{'s' * (told.photos > 1)}; about ten make a direction")
    first: dict[str, int] = {}
    for number, digest in enumerate(photos.digests):
        if (other := first.setdefault(digest, number)) != number:
            same = f"{photos.names[number]} and {photos.names[other]}"
            _say(f"{told.name}: {same} are the same picture, which counts twice")
    if told.left_out and told.left_out[1] <= threshold:
        _say(
            f"{told.name}: the mean cosine of its photos with each other ({told.left_out[1]:.2f}) does not exceed the "
            f"threshold {threshold:g}: most faces of it will be called {UNKNOWN}; a rejection curve tells a better one"
        )
    if told.left_out and told.nearest_cosine >= told.left_out[1]:
        _say(
            f"{told.name} is as near to {told.nearest} (cosine {told.nearest_cosine:.2f}) as its own photos are to "
            f"each other ({told.left_out[1]:.2f}): the two will be taken for each other"
        )


def _say(line: str) -> None:
    warnings.warn(line, stacklevel=4)
