"""A run from configuration to report: its folder, its data, training or continuing, and what is written at the end."""

import copy
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fer_fast.data.augment import FOURTEEN_ANGLES
from fer_fast.data.dataset import FaceDataset
from fer_fast.errors import InputError
from fer_fast.train.aside import Aside, copied
from fer_fast.train.checkpoint import CHECKPOINT, RESUME, below, load_resume, save_checkpoint, save_resume
from fer_fast.train.config import RunConfig, changed, file_layer, to_dict, to_yaml
from fer_fast.train.data import Splits, load_splits
from fer_fast.train.evaluation import Measured, Trained, load_trained, match_classes, measure
from fer_fast.train.folder import claimed, make_folder, refuse_results
from fer_fast.train.idle import settings_read
from fer_fast.train.lineage import ancestors, check_start
from fer_fast.train.loop import Trainer
from fer_fast.train.nested import difference
from fer_fast.train.objective import is_cross_entropy
from fer_fast.train.predictions import PREDICTIONS, save_predictions
from fer_fast.train.preflight import check_end, check_model, memory_named
from fer_fast.train.processes import ALONE, Processes, joined
from fer_fast.train.progress import make_progress
from fer_fast.train.provenance import membership, provenance
from fer_fast.train.weights import Weights, read_weights
from fer_fast.written import write_text

CONFIG = "config.yaml"
_RECORDED = (
    *("epoch", "epochs", "step", "val_accuracy", "counts", "data", "splits", "notes", "started_from"),
    *("date", "command", "commit", "versions", "device", "resumed"),
)
_Stored = tuple[dict[str, torch.Tensor], dict[str, Any]]


def train(config: RunConfig, out: Path, *, resume: bool = False, command: str | None = None) -> dict[str, Any]:
    """Train, evaluate on the test split, and leave everything about the run in `out`; return the metrics.

    All that the run needs to its end is opened and counted before its first batch. Processes that torchrun started
    train together: the first of them writes and prints, all return the metrics.

    Args:
        config: of the run; to resume, the same as that of the run in `out`, or one of more epochs.
        out: folder of the run, made if it is not there.
        resume: continue after the last finished epoch of the run in `out`, from its configuration where there is none;
            a finished run goes on to more epochs.
        command: the command line that asks for it, as the run's files will say; None from Python.

    Raises:
        InputError: a bad configuration or dataset, a folder that already holds a run or is being written by one,
            nothing to resume, a resumed run that is finished or was configured otherwise, weights of another network,
            too little room on the disk or the device, a loss that is no longer finite.
        ConnectionError: another process was lost.
    """
    started = time.perf_counter()
    with joined() as processes, processes.loss_named(), ExitStack() as claim, memory_named(config):
        stored = processes.from_first(lambda: _claim(config, out, resume, claim))
        if stored:  # what earlier sittings took
            started -= sum(row["seconds"] for row in stored[1]["history"])
        with processes.agreeing():
            trainer, splits, origin = prepare(config, stored, processes)
            match_classes(splits.test, splits.train.classes)
            parts = (splits.train, splits.val, splits.test)
            common = {
                "config": to_dict(trainer.config),
                "classes": list(splits.train.classes),
                "images": list(splits.train.images.shape[1:3]),  # channels, side
                "counts": {dataset.split: len(dataset) for dataset in parts},
                "data": {dataset.split: dataset.digest() for dataset in parts},
                "splits": membership(parts),
                "notes": list(splits.notes),
                **origin,
                **provenance(command, trainer.hardware, stored[1] if stored else None),
            }
            if stored:
                _continue(trainer, *stored, common["data"], out)
        _check_same(processes, common["data"])
        kept = Kept(out, common)
        processes.from_first(lambda: _begin(trainer, splits, out))
        with Aside() as aside, make_progress() as progress:
            if stored:  # a kill may have come between two files, and a run that is extended has another length
                kept.keep(trainer, aside)
            trainer.fit(progress, lambda: kept.keep(trainer, aside))
        return _conclude(trainer, splits.test, out, started)


def _claim(config: RunConfig, out: Path, resume: bool, claim: ExitStack) -> _Stored | None:
    """Take the folder, and what is to be continued in it."""
    claim.enter_context(claimed(out))
    if resume and not _begins_again(config, out):
        return _stored(config, out)
    refuse_results(out, RESUME, CHECKPOINT, "metrics.json")
    return None


def _check_same(processes: Processes, data: dict[str, str]) -> None:
    """Refuse processes that read different data, as machines with different copies of it would."""
    first, *others = processes.told(data)
    for rank, other in enumerate(others, 1):
        if unlike := difference(first, other):
            raise InputError(f"process {rank} reads other data than process 0; the digest of {unlike}")


def _begin(trainer: Trainer, splits: Splits, out: Path) -> None:
    """Write and say what a run begins with."""
    check_end(trainer, out)
    write_text(out / CONFIG, to_yaml(trainer.config))
    if splits.folds:
        write_text(out / "folds.json", json.dumps(splits.folds, indent=1) + "\n")
    _announce(trainer, len(splits.test), out)


def evaluate_checkpoint(
    trained: Trained,
    dataset: FaceDataset,
    out: Path | None,
    *,
    command: str | None = None,
    validation: FaceDataset | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Metrics of a checkpoint on a dataset; with `out`, metrics.json, predictions and report.html are written there.

    Args:
        trained: the checkpoint.
        dataset: the split that is reported.
        out: a folder, made if it is not there.
        command: the command line that asks for it, as the files will say; None from Python.
        validation: another split, from which a temperature is fitted.
        notes: what to know of the data, one line each.

    Raises:
        InputError: classes the model does not know, or a folder that already holds metrics.
    """
    if out is not None:
        refuse_results(out, "metrics.json", "report.html", PREDICTIONS)
    started = time.perf_counter()
    measured = measure(trained, dataset, validation=validation)
    measured.metrics["seconds"] = time.perf_counter() - started
    measured.metrics["notes"] = list(dict.fromkeys(notes))
    measured.metrics.update(provenance(command, trained.hardware))
    if out is not None:
        make_folder(out)
        _write_results(out, trained, [], dataset, measured)
    return measured.metrics


def prepare(
    config: RunConfig, stored: _Stored | None = None, processes: Processes = ALONE
) -> tuple[Trainer, Splits, dict[str, Any]]:
    """Build what a run needs. Weights, device, network and losses come first: data can take long to open.

    Returns:
        The trainer; the images; and of the weights that the run begins with, or began with, ``started_from`` (path and
        SHA-256) and ``ancestors`` (see `lineage`), nothing where there are none.

    Raises:
        InputError: what a run cannot begin with.
    """
    config, weights = try_model(config, stored, processes)
    splits = load_splits(config)
    origin, notes = {}, check_start(weights, config, splits.test)
    if weights:
        began = {"path": config.model.weights, "sha256": weights.sha256}
        origin = {"started_from": began, "ancestors": ancestors(weights.state, weights.source)}
    elif stored:  # the file may be gone, and what was said of it stays
        origin = {key: stored[1][key] for key in ("started_from", "ancestors") if key in stored[1]}
        notes = stored[1].get("notes", ())
    splits = splits._replace(notes=tuple(dict.fromkeys((*splits.notes, *notes))))
    return Trainer(config, splits.train, splits.val, weights, processes), splits, origin


def try_model(
    config: RunConfig, stored: _Stored | None = None, processes: Processes = ALONE
) -> tuple[RunConfig, Weights | None]:
    """The configuration with its geometry settled, and the weights that a run begins with.

    Raises:
        InputError: weights, a device, a network or a loss that a run cannot begin with.
    """
    # The state of a stored run holds what the weights gave; their file may be gone.
    weights = read_weights(config.model.weights) if config.model.weights and stored is None else None
    if config.model.geometry == "auto":
        geometry = weights.geometry if weights else "standard"
        if stored:
            geometry = stored[1]["config"]["model"]["geometry"]
        config = replace(config, model=replace(config.model, geometry=geometry))
    check_model(config, weights, processes)
    return config, weights


def only_configured(out: Path) -> bool:
    """Whether a folder is that of a run which was interrupted in its first epoch: its configuration is all there is."""
    left = any((out / name).exists() for name in (RESUME, CHECKPOINT, "metrics.json"))
    return (out / CONFIG).exists() and not left


def _begins_again(config: RunConfig, out: Path) -> bool:
    if not only_configured(out):
        return False
    if other := changed(file_layer(out / CONFIG), config):
        raise InputError(f"cannot resume {out} with another configuration: {other}")
    print(f"{out} was interrupted in its first epoch; it begins again from its {CONFIG}")
    return True


def _stored(config: RunConfig, out: Path) -> _Stored:
    """Tensors and state to continue from, checked against the configuration asked for."""
    tensors, state = load_resume(out)
    epochs = state["config"]["epochs"]
    extended = config.epochs > epochs
    if other := changed(state["config"], replace(config, epochs=epochs) if extended else config):
        raise InputError(f"cannot resume {out} with another configuration: {other}")
    if state["config"]["augment"].get("five_crop") and config.select == "best":
        raise InputError(
            f"cannot resume {out}: an earlier version selected its epochs by five crops, this one does by single views"
        )
    if not extended and _epochs_reported(out) == state["epochs"]:
        raise InputError(
            f"nothing to resume: the run in {out} is finished ({state['epoch']} epochs); more --epochs extend it"
        )
    return tensors, state


def _epochs_reported(out: Path) -> int | None:
    """Epochs of the run whose metrics lie in its folder; None where there are none yet."""
    try:
        return json.loads((out / "metrics.json").read_text(encoding="utf-8"))["epochs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _continue(
    trainer: Trainer, tensors: dict[str, torch.Tensor], state: dict[str, Any], data: dict[str, str], out: Path
) -> None:
    """Put the trainer where the stored run stood."""
    if other := difference(state["data"], data):
        raise InputError(f"cannot resume {out}: the data changed; the digest of {other}")
    trainer.resume(tensors, state)
    if trainer.config.epochs == state["config"]["epochs"]:
        return
    if trainer.epochs == state["epochs"]:
        raise InputError(
            f"more epochs do not extend {out}: it ends with iteration {trainer.config.iterations}; "
            f"--model.weights {out} starts a new run from it"
        )
    print(
        f"extended from {state['epochs']} to {trainer.epochs} epochs: learning rate "
        f"{state['history'][-1]['learning_rate']:.2e} at the end of epoch {trainer.epoch}, then {trainer.rate():.2e} "
        f"(schedule {trainer.config.schedule.name} over {trainer.epochs} epochs)"
    )


class Kept:
    """What of a run lies on disk: the state to resume from and, where they changed, the selected weights.

    Args:
        out: the run's folder.
        common: what both files say of the run.
    """

    def __init__(self, out: Path, common: dict[str, Any]):
        self.out, self.common = out, common
        self.epoch = 0  # of the weights that this sitting wrote last; only the thread that writes looks

    def keep(self, trainer: Trainer, aside: Aside) -> None:
        """Have the trainer's state, as it is now and as all processes have it, written aside by the first of them."""
        if not trainer.processes.first:
            return
        tensors, state = copied(trainer.tensors()), copy.deepcopy(trainer.state())
        prefix, _ = trainer.weights()
        epoch = trainer.best["epoch"] if prefix == "best" else trainer.epoch
        aside(self._write, tensors, {**state, "epochs": trainer.epochs}, prefix, epoch)

    def _write(self, tensors: dict[str, torch.Tensor], state: dict[str, Any], prefix: str, epoch: int) -> None:
        save_resume(self.out, tensors, {**state, **self.common})
        if epoch != self.epoch:
            about = {"epoch": epoch, "epochs": state["epochs"]}
            about |= {key: state["history"][epoch - 1][key] for key in ("step", "val_accuracy")}
            save_checkpoint(self.out, below(prefix, tensors), {**about, **self.common})
            self.epoch = epoch


def _conclude(trainer: Trainer, test: FaceDataset, out: Path, started: float) -> dict[str, Any]:
    """Evaluate the checkpoint that the run leaves on the test split and write what a finished run leaves."""
    # From its file, as `fer-fast eval` and `fer-fast verify` do, so that these find the same numbers.
    processes = trainer.processes
    trained = load_trained(out, str(trainer.hardware.device), processes)
    measured = measure(trained, test, processes, trainer.val_set)
    measured.metrics.update(recorded(trained.state), seconds=time.perf_counter() - started)
    processes.from_first(lambda: _write_results(out, trained, trainer.history, test, measured))
    return measured.metrics


def recorded(state: dict[str, Any]) -> dict[str, Any]:
    """What metrics.json repeats of a checkpoint's state, as far as it is there."""
    settings = {key: state["config"][key] for key in ("recipe", "seed")}
    return settings | {key: state[key] for key in _RECORDED if key in state}


def _write_results(
    out: Path, trained: Trained, history: list[dict[str, Any]], dataset: FaceDataset, measured: Measured
) -> None:
    """predictions.safetensors, report.html, then metrics.json, whose presence marks a finished run."""
    from fer_fast.train.report import write_report  # matplotlib and scikit-learn take seconds to import

    config = trained.config
    save_predictions(out, measured.labels, measured.scores, trained.classes, dataset)
    write_report(
        out / "report.html",
        title=titled(config),
        metrics=measured.metrics,
        history=history,
        config=settings_read(config),
        features=measured.features,
        labels=measured.labels,
        scores=measured.scores,
        images=dataset.images,
        names=dataset.names,
        classes=measured.metrics["classes"],
        subjects=dataset.subjects,
        activation=lambda rows, classes: trained.activation(dataset.images[rows], classes),
        one_loss=is_cross_entropy(config),
    )
    write_text(out / "metrics.json", json.dumps(measured.metrics, indent=1) + "\n")


def titled(config: RunConfig) -> str:
    """What a run is of, in a line."""
    tested = f", tested on {config.test_dataset}" if config.test_dataset else ""
    return f"{config.loss} · {config.backbone} · {config.dataset}{tested}"


def _announce(trainer: Trainer, tested: int, out: Path) -> None:
    config, train_set = trainer.config, trainer.train_set
    copies = f" ({len(FOURTEEN_ANGLES) * 2} copies of each)" if config.data.fourteen_fold else ""
    parameters = sum(p.numel() for p in trainer.learner.recogniser.parameters()) / 1e6
    together = f", {trainer.processes.count} processes" if trainer.processes.count > 1 else ""
    print(
        f"{config.recipe}: {titled(config)}, {parameters:.1f} M parameters: "
        f"{len(train_set)} train{copies}, {len(trainer.val_set)} val, {tested} test images, "
        f"{len(train_set.classes)} classes, {trainer.hardware.device.type if together else trainer.hardware.device} "
        f"{trainer.hardware.precision}{together}"
    )
    if trainer.started_from:
        print(trainer.started_from)
    if trainer.steps < config.epochs * trainer.steps_per_epoch:
        print(f"ends after {trainer.steps} steps; an epoch has {trainer.steps_per_epoch}")
    print(f"{f'continuing after epoch {trainer.epoch}' if trainer.epoch else 'writing'} in {out}", flush=True)
