"""`fer_fast.load`: a checkpoint as an object that names the expressions of faces."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fer_fast.data.align import Box
from fer_fast.data.prepare import Prepared
from fer_fast.errors import InputError
from fer_fast.serve.enrolment import UNKNOWN, Enrolled, enrol, undo
from fer_fast.serve.pictures import BATCH, WHICH, Picture, Which, ahead, cut, pixels, several
from fer_fast.serve.threads import cores, each_on_one_core
from fer_fast.suggest import one_of
from fer_fast.train.checkpoint import checkpoint_file, save_checkpoint
from fer_fast.train.evaluation import Trained, load_trained, predict
from fer_fast.train.folder import make_folder

_PART = 8  # faces that are worth a thread


class NamedFace(NamedTuple):
    """A face and what it shows.

    Attributes:
        label: the best class, or "unknown" where its cosine does not exceed the model's threshold.
        best: the class with the largest cosine; of a classifier without directions, with the best score.
        score: probability of the best class.
        scores: probabilities by class.
        cosine: between the features and the direction of the best class; None for a classifier that has none.
        box: left, top, width, height in the picture, which a box may reach beyond.
        found: whether a face was found; where not, the box is the central square.
    """

    label: str
    best: str
    score: float
    scores: dict[str, float]
    cosine: float | None
    box: Box
    found: bool


class Seen(NamedTuple):
    """The faces of one picture.

    Attributes:
        picture: as it was given.
        faces: those found, the largest first, or the whole of it; none where it could not be read.
        size: width and height in pixels.
        error: why it could not be read, in a line that names it; None where it could.
    """

    picture: Picture
    faces: tuple[NamedFace, ...]
    size: tuple[int, int]
    error: str | None = None


class FaceModel:
    """A trained model in use; `fer_fast.load` makes one.

    Attributes:
        classes: names of its classes, those enrolled last.
        threshold: the cosine that a class has to exceed, else a face is "unknown"; None names every face.
    """

    def __init__(self, trained: Trained):
        self.trained = trained
        self.threshold: float | None = trained.state.get("threshold")

    @property
    def classes(self) -> tuple[str, ...]:
        return self.trained.classes

    def predict(self, images: Picture | Iterable[Picture], *, faces: Which = "largest") -> list[tuple[NamedFace, ...]]:
        """Name the faces of pictures.

        Args:
            images: image files, the bytes of such, uint8 arrays (height, width[, 3]) RGB, uint8 tensors (1 or 3,
                height, width) or PIL images; one, or several.
            faces: largest: one face a picture; all: every face found; whole: each picture is a face already, as in
                most datasets. Where no face is found, the central square of the picture counts, and says so.

        Returns:
            A tuple of faces for each picture, in order.

        Raises:
            InputError: a picture that cannot be read, which is named. `see` goes on after such.
        """
        return [seen.faces for seen in self._whole(images, faces)]

    def enrol(
        self,
        name: str,
        images: Picture | Iterable[Picture],
        *,
        faces: Literal["largest", "whole"] = "largest",
        refresh: float | None = None,
    ) -> Enrolled:
        """Add a class from about ten photos of it, without training; or refresh one. See `fer_fast.serve.enrolment`.

        The model is changed, its file is not: `save` writes one. Where no threshold was set, it becomes 0.6.

        Args:
            name: of the class; a new one, or with `refresh` one that is there.
            images: as `predict` takes them.
            faces: as for `predict`; a photo in which no face is found is refused with "largest".
            refresh: η in (0, 1], the weight of these photos in the class's direction.

        Returns:
            How well its photos agree with each other and which class is nearest.

        Raises:
            InputError: a name, a number or a photo that will not do, each of which is named, or a classifier that does
                not tell classes by direction. The model stays as it was.
        """
        return enrol(self, {name: images}, faces=faces, refresh=refresh)[0]

    def undo(self) -> str:
        """Take back the last `enrol`, also one that is in the model's file; gives the name of the class.

        Weights, classes and threshold come back bit for bit.

        Raises:
            InputError: no class was enrolled.
        """
        return undo(self)

    @contextmanager
    def unless_it_fails(self) -> Iterator[None]:
        """As a context: where the block raises, the model is again as it was before `enrol` and `undo` in it."""
        trained, threshold, classifier = self.trained, self.threshold, self.trained.recogniser.classifier
        weight, count = classifier.weight, classifier.num_classes
        try:
            yield
        except BaseException:
            self.trained, self.threshold = trained, threshold
            classifier.weight, classifier.num_classes = weight, count
            raise

    def save(self, path: str | Path) -> Path:
        """Write the model as a checkpoint, which replaces one that is there at once; gives the file.

        Args:
            path: a folder, made if it is not there, or a file whose name ends in .safetensors. A copy of the state for
                people stands beside it, as .json.

        Raises:
            InputError: the files cannot be written.
        """
        path = checkpoint_file(Path(path))
        make_folder(path.parent)
        # A file of version 1 held more than the weights, and its state names them.
        state = {key: value for key, value in self.trained.state.items() if key != "weights"}
        if self.threshold is None:
            state.pop("threshold", None)
        else:
            state["threshold"] = self.threshold
        tensors = self.trained.recogniser.state_dict()
        save_checkpoint(path, {name: tensors[name] for name in self.trained.stored}, state)
        return path

    def embed(self, images: Picture | Iterable[Picture], *, faces: Which = "largest") -> Tensor:
        """Features of the faces of pictures: float32 (faces, d) on the CPU, as the classifier reads them.

        With `faces` "largest" or "whole" these are one row a picture; the other arguments and errors are `predict`'s.
        """
        cuts = [future.result()[0] for _, future in ahead(several(images), self._cutter(faces))]
        return self.score([face for found in cuts for face in found])[0]

    def see(
        self,
        images: Iterable[Picture],
        *,
        faces: Which = "all",
        batch: int = BATCH,
        progress: Callable[[int], None] = lambda pictures: None,
    ) -> Iterator[Seen]:
        """Name the faces of any number of pictures, in batches across them; a broken one is told and passed over.

        Pictures are decoded and faces found by threads while the network runs, a bounded number ahead.

        Args:
            images: as `predict` takes them, also more than fit into memory.
            faces: as for `predict`.
            batch: faces that go through the network at once, 1 or more.
            progress: called with the number of pictures done so far.
        """
        waiting: list[Seen | tuple[Picture, list[Prepared], tuple[int, int]]] = []
        count = done = 0
        for picture, future in ahead(images, self._cutter(faces)):
            try:
                found, size = future.result()
            except InputError as error:
                waiting.append(Seen(picture, (), (0, 0), str(error)))
            else:
                waiting.append((picture, found, size))
                count += len(found)
            if count >= batch or len(waiting) >= 4 * batch:
                yield from self._named(waiting)
                done, count = done + len(waiting), 0
                progress(done)
                waiting = []
        yield from self._named(waiting)
        progress(done + len(waiting))

    def score(self, faces: Sequence[Prepared]) -> tuple[Tensor, Tensor]:
        """Features (n, d) and class probabilities (n, C) of faces as `cut` gives them, float32 on the CPU."""
        trained, augment = self.trained, self.trained.config.augment
        if not faces:
            width = trained.recogniser.encoder.feature_dim
            return torch.zeros(0, width), torch.zeros(0, len(trained.classes))
        images = torch.from_numpy(np.stack([face.pixels for face in faces])).permute(0, 3, 1, 2).contiguous()

        def run(part: Tensor) -> tuple[Tensor, Tensor]:
            return predict(trained.recogniser, part, augment, trained.hardware, batch_size=BATCH, crops=augment.crops)

        parts = images.split(max(_PART, -(-len(images) // cores()))) if trained.hardware.device.type == "cpu" else ()
        if len(parts) < 2:
            return run(images)
        features, scores = zip(*each_on_one_core(run, parts), strict=True)
        return torch.cat(features), torch.cat(scores)

    def name(self, faces: Sequence[Prepared], features: Tensor, scores: Tensor) -> list[NamedFace]:
        """What faces show, from the two results of `score`."""
        cosines = self.cosines(features)
        best = (scores if cosines is None else cosines).argmax(1)
        return self.named(faces, best, scores, cosines)

    def named(
        self, faces: Sequence[Prepared], bests: Tensor, scores: Tensor, cosines: Tensor | None
    ) -> list[NamedFace]:
        """Faces with their best classes (n,), probabilities (n, C) and, where the classes have directions, cosines."""
        named = []
        for number, (face, best, row) in enumerate(zip(faces, bests.tolist(), scores, strict=True)):
            cosine = None if cosines is None else float(cosines[number, best])
            known = self.threshold is None or cosine is None or cosine > self.threshold
            name, scored = self.classes[best], dict(zip(self.classes, row.tolist(), strict=True))
            label = name if known else UNKNOWN
            named.append(NamedFace(label, name, float(row[best]), scored, cosine, face.box, face.found))
        return named

    def cosines(self, features: Tensor) -> Tensor | None:
        """cos(x_i, w_c) of features (n, d) with the directions of the classes: (n, C); None where they have none."""
        classifier = self.trained.recogniser.classifier
        if not classifier.directional:
            return None
        weight = classifier.weight.detach().float().cpu()
        return F.normalize(features.float(), dim=1) @ F.normalize(weight, dim=1).T

    def _whole(self, images: Picture | Iterable[Picture], faces: Which) -> Iterator[Seen]:
        for seen in self.see(several(images), faces=faces):
            if seen.error is not None:
                raise InputError(seen.error)
            yield seen

    def _cutter(self, faces: Which) -> Callable[[Picture], tuple[list[Prepared], tuple[int, int]]]:
        how, which = self.trained.preparation(), one_of(faces, WHICH, "faces")

        def read(picture: Picture) -> tuple[list[Prepared], tuple[int, int]]:
            image = pixels(picture, gray=how.channels == 1)
            return cut(image, how, which), (image.shape[1], image.shape[0])

        return read

    def _named(self, waiting: Sequence[Seen | tuple[Picture, list[Prepared], tuple[int, int]]]) -> Iterator[Seen]:
        faces = [face for one in waiting if not isinstance(one, Seen) for face in one[1]]
        named = iter(self.name(faces, *self.score(faces)))
        for one in waiting:
            if isinstance(one, Seen):
                yield one
            else:
                picture, found, size = one
                yield Seen(picture, tuple(next(named) for _ in found), size)


def load(checkpoint: str | Path, device: str | None = None) -> FaceModel:
    """A trained model, ready to name faces.

    >>> model = fer_fast.load("runs/ecan")  # doctest: +SKIP
    >>> model.predict("photo.jpg")[0][0].label  # doctest: +SKIP
    'happiness'

    Args:
        checkpoint: checkpoint.safetensors, or the folder of a run.
        device: cpu, cuda, ...; None takes a GPU if there is one.

    Raises:
        InputError: no readable checkpoint, or one whose parts do not fit together.
    """
    return FaceModel(load_trained(checkpoint, device))
