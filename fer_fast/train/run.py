"""A run from configuration to report: its folder, its data, training or continuing, and what is written at the end."""

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fer_fast.data import DATASETS, load_dataset
from fer_fast.data.augment import fourteen_fold
from fer_fast.data.dataset import SPLITS, FaceDataset
from fer_fast.errors import InputError
from fer_fast.suggest import one_of
from fer_fast.train.checkpoint import CHECKPOINT, load_checkpoint, restore, save_checkpoint, write_copies, write_text
from fer_fast.train.config import RunConfig, difference, from_dict, to_dict, to_yaml
from fer_fast.train.evaluation import Trained, match_classes, predict
from fer_fast.train.loop import Trainer
from fer_fast.train.progress import make_progress


def train(config: RunConfig, out: Path, *, resume: bool = False) -> dict[str, Any]:
    """Train, evaluate on the test split, and leave everything about the run in `out`; return the metrics.

    Args:
        config: of the run; to resume, the same as that of the run in `out`.
        out: folder of the run, made if it is not there.
        resume: continue after the last finished epoch of the run in `out`.

    Raises:
        InputError: a bad configuration or dataset, a folder that already holds a run, nothing to resume, a resumed run
            that is finished or was configured otherwise, a loss that is no longer finite.
    """
    stored = _stored(config, out) if resume else _claim(out, CHECKPOINT, "metrics.json")
    train_set, val_set = (load_split(config, split) for split in ("train", "val"))
    if config.data.fourteen_fold:
        train_set = fourteen_fold(train_set)
    digests = {"train": train_set.digest(), "val": val_set.digest()}
    trainer = Trainer(config, train_set, val_set)
    if stored:
        tensors, state = stored
        if changed := difference(state["data"], digests):
            raise InputError(f"cannot resume {out}: the data changed; the digest of {changed}")
        trainer.resume(tensors, state)
        write_copies(out, state)  # a kill may have come between the checkpoint and its copies
    _make_folder(out)
    write_text(out / "config.yaml", to_yaml(config))
    common = {
        "config": to_dict(config),
        "classes": list(train_set.classes),
        "images": list(train_set.images.shape[1:3]),  # channels, side
        "data": digests,
        "versions": versions(),
    }
    _announce(trainer, out)

    def keep() -> None:
        save_checkpoint(out, trainer.tensors(), {**trainer.state(), **common})

    with make_progress() as progress:
        trainer.fit(progress, keep)
    return _conclude(trainer, common, out)


def evaluate_checkpoint(trained: Trained, dataset: FaceDataset, out: Path | None) -> dict[str, Any]:
    """Metrics of a checkpoint on a dataset; with `out`, metrics.json and report.html are written there.

    Raises:
        InputError: classes the model does not know, or a folder that already holds metrics.
    """
    if out is not None:
        _claim(out, "metrics.json", "report.html")
    started = time.perf_counter()
    labels = match_classes(dataset, trained.classes)
    features, scores = predict(trained.recogniser, dataset.images, trained.config.augment, trained.hardware)
    metrics = _metrics(dataset, labels, scores, trained.classes, seconds=time.perf_counter() - started)
    if out is not None:
        _make_folder(out)
        _write_results(out, trained.config, metrics, [], dataset, labels, features, scores, trained.classes)
    return metrics


def load_split(config: RunConfig, split: str) -> FaceDataset:
    """One split of the configured dataset.

    Raises:
        InputError: an unknown dataset or split, or data that cannot be read.
    """
    one_of(config.dataset, DATASETS, "dataset")
    options = {
        name: value.get(split) if isinstance(value, dict) and value.keys() == set(SPLITS) else value
        for name, value in config.data.options.get(config.dataset, {}).items()
    }
    return load_dataset(
        config.dataset,
        config.root,
        split=split,
        image_size=config.data.image_size,
        channels=config.data.channels,
        faces=config.data.faces,
        seed=config.seed,
        **options,
    )


def fresh_folder(recipe: str, parent: Path = Path("runs")) -> Path:
    """The first free runs/<recipe>-<n>."""
    return parent / f"{recipe}-{_last_number(recipe, parent) + 1}"


def latest_folder(recipe: str, parent: Path = Path("runs")) -> Path:
    """The runs/<recipe>-<n> begun last.

    Raises:
        InputError: there is none.
    """
    number = _last_number(recipe, parent)
    if number == 0:
        raise InputError(f"nothing to resume: there is no {parent / recipe}-<n>; name the folder with --out")
    return parent / f"{recipe}-{number}"


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "fer-fast": version("fer-fast"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "timm": version("timm"),
    }


def _conclude(trainer: Trainer, common: dict[str, Any], out: Path) -> dict[str, Any]:
    """Evaluate the selected weights on the test split and write what a finished run leaves."""
    started = time.perf_counter()
    config = trainer.config
    name, tensors = trainer.weights()
    recogniser = trainer.learner.recogniser
    restore(recogniser, tensors, "the selected weights")
    test = load_split(config, "test")
    labels = match_classes(test, trainer.train_set.classes)
    features, scores = predict(recogniser, test.images, config.augment, trainer.hardware)
    seconds = sum(row["seconds"] for row in trainer.history) + time.perf_counter() - started
    epoch = trainer.best["epoch"] if name == "best" else trainer.epoch
    metrics = _metrics(test, labels, scores, trainer.train_set.classes, seconds=seconds)
    metrics |= {"epoch": epoch, "seed": config.seed, "data": common["data"] | metrics["data"]}
    _write_results(out, config, metrics, trainer.history, test, labels, features, scores, trainer.train_set.classes)
    return metrics


def _metrics(
    dataset: FaceDataset, labels: torch.Tensor, scores: torch.Tensor, classes: tuple[str, ...], *, seconds: float
) -> dict[str, Any]:
    # torchmetrics takes seconds to import, which a mistake on the command line must not wait for.
    from fer_fast.train.metrics import evaluate

    return {
        **evaluate(labels, scores, classes),
        "split": dataset.split,
        "seconds": seconds,
        "images": len(dataset),
        "data": {dataset.split: dataset.digest()},
        "versions": versions(),
    }


def _write_results(
    out: Path,
    config: RunConfig,
    metrics: dict[str, Any],
    history: list[dict[str, Any]],
    dataset: FaceDataset,
    labels: torch.Tensor,
    features: torch.Tensor,
    scores: torch.Tensor,
    classes: tuple[str, ...],
) -> None:
    """report.html, then metrics.json, whose presence marks a finished run."""
    from fer_fast.train.report import write_report  # matplotlib and scikit-learn: as above

    write_report(
        out / "report.html",
        title=f"{config.loss} · {config.backbone} · {config.dataset}",
        metrics=metrics,
        history=history,
        config=to_dict(config),
        features=features,
        labels=labels,
        scores=scores,
        images=dataset.images,
        names=dataset.names,
        classes=classes,
    )
    write_text(out / "metrics.json", json.dumps(metrics, indent=1) + "\n")


def _stored(config: RunConfig, out: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The checkpoint to continue from, checked against the configuration asked for."""
    if not (out / CHECKPOINT).is_file():
        raise InputError(f"nothing to resume: {out / CHECKPOINT} does not exist")
    tensors, state = load_checkpoint(out)
    # Through the dataclasses, so that a field added since the run began compares by its default.
    if changed := difference(to_dict(from_dict(state["config"])), to_dict(config)):
        raise InputError(f"cannot resume {out} with another configuration: {changed}")
    if (out / "metrics.json").exists():
        raise InputError(f"nothing to resume: the run in {out} is finished ({state['epoch']} epochs)")
    return tensors, state


def _claim(out: Path, *files: str) -> None:
    """Refuse a folder that already holds results."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; a folder is needed")
    if present := [name for name in files if (out / name).exists()]:
        raise InputError(
            f"{out} already holds a run ({present[0]}); choose another --out, or continue it with --resume --out {out}"
        )


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}") from None


def _last_number(recipe: str, parent: Path) -> int:
    numbers = [path.name.removeprefix(f"{recipe}-") for path in parent.glob(f"{recipe}-*")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _announce(trainer: Trainer, out: Path) -> None:
    config, train_set = trainer.config, trainer.train_set
    parameters = sum(p.numel() for p in trainer.learner.recogniser.parameters()) / 1e6
    print(
        f"{config.recipe}: {config.loss} on {config.backbone} ({parameters:.1f} M parameters), {config.dataset}: "
        f"{len(train_set)} train, {len(trainer.val_set)} val images, {len(train_set.classes)} classes, "
        f"{trainer.hardware.device} {trainer.hardware.precision}"
    )
    if trainer.loaded_keys:
        print(f"weights {config.model.weights}: {trainer.loaded_keys[0]} of {trainer.loaded_keys[1]} tensors matched")
    print(f"{f'continuing after epoch {trainer.epoch}' if trainer.epoch else 'writing'} in {out}", flush=True)
