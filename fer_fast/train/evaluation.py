"""From a checkpoint to a recogniser, from there to probabilities, and from these to the numbers of a split."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_fast.data.augment import CROPS, AugmentConfig, Normalise, views
from fer_fast.data.dataset import FaceDataset, Images
from fer_fast.data.prepare import Preparation
from fer_fast.data.progress import watched
from fer_fast.errors import InputError
from fer_fast.train.activation import class_activation
from fer_fast.train.calibration import calibration
from fer_fast.train.checkpoint import load_checkpoint, restore
from fer_fast.train.config import RunConfig, from_dict
from fer_fast.train.feed import Feed
from fer_fast.train.hardware import Hardware
from fer_fast.train.learner import build_recogniser
from fer_fast.train.models import Recogniser
from fer_fast.train.objective import plan_losses
from fer_fast.train.processes import ALONE, Processes
from fer_fast.train.provenance import membership, weights_digest


@dataclass(frozen=True)
class Trained:
    """What a checkpoint gives for inference.

    Attributes:
        recogniser: in evaluation mode, on the device.
        classes: names of its classes.
        config: of the run.
        hardware: where it runs.
        state: the rest of the checkpoint's state.
        stored: names of the recogniser's tensors that the checkpoint holds; those of earlier versions lack some.
    """

    recogniser: Recogniser
    classes: tuple[str, ...]
    config: RunConfig
    hardware: Hardware
    state: dict[str, Any]
    stored: Collection[str]

    def preparation(self) -> Preparation:
        """How a photograph becomes such an image as the run was trained on.

        The face is found and aligned also where the training images were crops already.
        """
        # Checkpoints of earlier versions do not tell the shape of their images.
        channels, size = self.state.get("images", (3, self.config.augment.size))
        return Preparation(size, channels, "haar" if self.config.data.faces == "haar" else "align")

    def activation(self, images: Tensor, classes: Tensor) -> Tensor:
        """`class_activation` of whole images uint8 (n, c, h, w) for classes int64 (n,): float32 (n, size, size)."""
        device = self.hardware.device
        normalised = self.hardware.layout(Normalise(self.config.augment)(images.to(device)))
        return class_activation(self.recogniser, normalised, classes.to(device))


def load_trained(path: str | Path, device: str | None = None, processes: Processes = ALONE) -> Trained:
    """Build the recogniser of a checkpoint and load the weights its run selected.

    Args:
        path: checkpoint.safetensors, or the folder of the run.
        device: where to run; None takes what the run was configured for, or what there is instead.
        processes: of which the first reads the file for all.

    Raises:
        InputError: no readable checkpoint, or one whose parts do not fit together.
    """
    tensors, state = processes.from_first(lambda: load_checkpoint(path))
    try:
        config, classes = from_dict(state["config"]), tuple(state["classes"])
    except KeyError as error:
        raise InputError(f"the checkpoint {path} is corrupt: it has no {error}") from None
    try:
        added = sum(each["op"] == "add" for each in state.get("enrolled", ()))  # see fer_fast.serve.enrolment
    except (KeyError, TypeError):
        raise InputError(f"the checkpoint {path} is corrupt: its journal of enrolled classes") from None
    config.hardware.device = device or "auto"
    if config.hardware.precision == "float16" and not torch.cuda.is_available():
        config.hardware.precision = "float32"
    hardware = Hardware(config.hardware)
    # Classes that were enrolled have rows of the classifier; the network was built for those before.
    trained_on = classes[: len(classes) - added]
    recogniser = build_recogniser(config, plan_losses(config), torch.ones(len(classes)), trained_on)
    restore(recogniser, tensors, f"the checkpoint {path}")
    return Trained(hardware.place(recogniser).eval(), classes, config, hardware, state, tensors.keys())


@torch.inference_mode()
def predict(
    recogniser: Recogniser,
    images: Tensor | Images,
    augment: AugmentConfig,
    hardware: Hardware,
    batch_size: int = 256,
    progress: Callable[[int, int], None] = lambda done, total: None,
    crops: int = 1,
    processes: Processes = ALONE,
) -> tuple[Tensor, Tensor]:
    """Features (n, d) and class probabilities (n, C), float32 on the CPU, for images uint8 (n, c, h, w).

    The recogniser is used in evaluation mode and left in the mode it was in. Both are means over the `crops`, 1, 5 or
    10 (see `fer_fast.data.augment.views`). `progress` is called with images done and all of them.

    Several processes share the batches, which are the same whoever computes them, and all have what all computed.
    """
    normalise = Normalise(augment)
    training = recogniser.training
    recogniser.eval()
    features, scores = [], []
    order = torch.arange(len(images)).split(max(1, batch_size // crops))
    order = [order[number] for number in processes.share(torch.arange(len(order))).tolist()]
    feed, total = Feed(images, torch.zeros(len(images)), hardware.device, resident=False), sum(map(len, order))
    for part, _ in feed.batches(order) if order else ():
        part = views(part, crops).flatten(0, 1)
        with hardware.autocast():
            x, logits = recogniser(hardware.layout(normalise(part)))
        features.append(x.float().unflatten(0, (-1, crops)).mean(1))
        scores.append(logits.float().softmax(1).unflatten(0, (-1, crops)).mean(1))
        progress(sum(map(len, scores)), total)
    recogniser.train(training)
    found = [torch.cat(parts).cpu() for parts in (features, scores) if parts]
    whole = zip(*filter(None, processes.told(found)), strict=True)
    features, scores = (parts[0] if len(parts) == 1 else torch.cat(parts) for parts in whole)
    return features, scores


class Measured(NamedTuple):
    """How a recogniser does on a split.

    Attributes:
        metrics: what `fer_fast.train.metrics.evaluate` gives and what it was of, as `fer-fast eval` writes it.
        labels: (n,) as indices into the classes of the model.
        features: (n, d).
        scores: (n, C) probabilities.
    """

    metrics: dict[str, Any]
    labels: Tensor
    features: Tensor
    scores: Tensor


def measure(
    trained: Trained, dataset: FaceDataset, processes: Processes = ALONE, validation: FaceDataset | None = None
) -> Measured:
    """Evaluate on a dataset with the test crops of the run, and with fewer crops too, so that they are told apart.

    Several processes share the images, and each has the numbers of all of them.

    Args:
        trained: a checkpoint.
        dataset: what is reported.
        processes: that share it.
        validation: other images, which a temperature is fitted to.

    Raises:
        InputError: the dataset has images of a class the model does not know.
    """
    # torchmetrics takes seconds to import, which a mistake on the command line must not wait for.
    from fer_fast.train.metrics import BOUNDED, evaluate

    tensors = trained.recogniser.state_dict()
    labels, (unit, units) = match_classes(dataset, trained.classes), drawn_together(dataset)
    augment, apart, fitted = trained.config.augment, {}, None

    def predicted(part: FaceDataset, crops: int) -> tuple[Tensor, Tensor]:
        with watched(f"evaluating {part.split}" + (f", {crops} crops" if crops > 1 else "")) as progress:
            how = {"progress": progress, "crops": crops, "processes": processes}
            return predict(trained.recogniser, part.images, augment, trained.hardware, **how)

    for crops in (count for count in CROPS if count <= augment.crops):
        features, scores = predicted(dataset, crops)
        metrics = evaluate(labels, scores, trained.classes, units)
        apart[str(crops)] = {key: metrics[key] for key in BOUNDED}
    if validation is not None:
        fitted = match_classes(validation, trained.classes), predicted(validation, augment.crops)[1]
    metrics |= {
        "intervals_by": unit,
        "calibration": calibration(labels, scores, fitted),
        "parameters": sum(parameter.numel() for parameter in trained.recogniser.parameters()),
        **({"crops": apart} if len(apart) > 1 else {}),
        "split": dataset.split,
        "images": len(dataset),
        "data": {dataset.split: dataset.digest()},
        "splits": membership((dataset,)),
        "weights": weights_digest({name: tensors[name] for name in trained.stored}),
    }
    return Measured(metrics, labels, features, scores)


def drawn_together(dataset: FaceDataset) -> tuple[str, Tensor | None]:
    """What an interval resamples: subjects where they are known, else groups, else images; and their numbers (n,)."""
    for unit, numbers in (("subject", dataset.subjects), ("group", dataset.groups)):
        if numbers is not None and (numbers != numbers[0]).any():  # one alone says nothing of others
            return unit, numbers
    return "image", None


def loss_and_accuracy(scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """Cross-entropy of probabilities (n, C) against labels (n,), and the share of right answers."""
    loss = F.nll_loss(scores.double().clamp_min(1e-12).log(), labels)
    return float(loss), float((scores.argmax(1) == labels).double().mean())


def match_classes(dataset: FaceDataset, classes: tuple[str, ...]) -> Tensor:
    """The dataset's labels (n,) as indices into the classes of a model, by name.

    Raises:
        InputError: the dataset has images of a class the model does not know.
    """
    counts = dataset.class_counts().tolist()
    missing = [name for name, count in zip(dataset.classes, counts, strict=True) if count and name not in classes]
    if missing:
        raise InputError(f"the model does not know {', '.join(missing)} of the dataset; it knows {', '.join(classes)}")
    table = [classes.index(name) if name in classes else -1 for name in dataset.classes]
    return torch.tensor(table)[dataset.labels]
