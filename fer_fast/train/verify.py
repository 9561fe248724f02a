"""Whether what the folder of a run or a study says is so: its data, its weights and its numbers, worked out again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fer_fast.data.dataset import FaceDataset
from fer_fast.errors import InputError
from fer_fast.train.checkpoint import CHECKPOINT, RESUME, read_json
from fer_fast.train.config import changed, file_layer
from fer_fast.train.data import Splits, load_splits
from fer_fast.train.evaluation import Measured, Trained, load_trained, loss_and_accuracy, measure, predict
from fer_fast.train.folder import check_finished
from fer_fast.train.predictions import PREDICTIONS, load_predictions
from fer_fast.train.provenance import last_sitting, membership, provenance
from fer_fast.train.run import recorded
from fer_fast.train.study import read_study
from fer_fast.train.study_summary import summarise

FLIPS = 1000  # elsewhere one prediction of so many may turn out otherwise, and one in any case
# How far numbers may lie elsewhere: of whole ones (in float32 in earlier versions), of ranks, of units drawn together.
_ROUNDING, _RANKS, _UNITS = 1e-6, 1e-3, 1e-2


class Finding(NamedTuple):
    """One thing that a folder says.

    Attributes:
        verdict: "holds", "differs", "failed" (it could not be looked at) or "note" (it was not).
        what: it is about.
        said: one line.
        exact: whether what holds is equal to the last bit.
        turned: predictions that turn out otherwise.
        images: of how many.
    """

    verdict: str
    what: str
    said: str
    exact: bool = True
    turned: int = 0
    images: int = 0


class Where(NamedTuple):
    """Where to verify.

    Attributes:
        root, test_root: folders of the datasets; None where they were.
        device: None takes a GPU if there is one.
    """

    root: str | None = None
    test_root: str | None = None
    device: str | None = None


def verify_run(folder: Path, where: Where) -> list[Finding]:
    """Compare everything that the folder of a finished run states with what its data and its weights give now.

    On the machine and with the versions of the run numbers are equal. Elsewhere rounding may turn one prediction in a
    thousand, at least one: numbers of the confusion matrix must then follow from the stated one, and others be near.
    What is not equal is said also where it holds.

    Raises:
        InputError: no finished run, a damaged file, or data that cannot be read.
    """
    check_finished(folder)
    if not any((folder / name).exists() for name in (CHECKPOINT, RESUME, "config.yaml")):
        raise InputError(f"{folder} is of an evaluation, without a checkpoint; verify the run that was evaluated")
    stated = read_json(folder / "metrics.json")
    trained = load_trained(folder, where.device)
    config = trained.config
    config.root, config.test_root = where.root or config.root, where.test_root or config.test_root
    splits = load_splits(config)
    elsewhere = _elsewhere(trained)
    record, measured = recorded(trained.state), measure(trained, splits.test, validation=splits.val)
    found = measured.metrics
    told = [key for key in record if key in stated]  # earlier versions tell less
    return [
        *_files(folder, trained.state),
        *elsewhere,
        _compared(
            "record", {key: stated[key] for key in told}, {key: record[key] for key in told}, said="as the checkpoint"
        ),
        *_data(stated, splits),
        *_selection(folder, trained, splits.val, bool(elsewhere)),
        *_numbers(stated, found, bool(elsewhere)),
        _predictions(folder, measured, bool(elsewhere)),
        *(Finding("note", key, "not stated") for key in {**record, **found} if key not in stated),
        *(Finding("note", key, "not looked at") for key in (*stated, "report.html") if key not in {**record, **found}),
    ]


def verify_study(folder: Path, where: Where) -> Iterator[Finding]:
    """Verify every run of a study, that they are the runs it asks for, and that its numbers follow from theirs.

    Elsewhere one prediction in a thousand of all runs together may turn, at least one.

    Raises:
        InputError: no finished study, or a damaged file of it.
    """
    check_finished(folder)
    study, stated, results, found = read_study(folder), read_json(folder / "metrics.json"), [], []
    try:
        failed = {each["folder"]: each["error"] for each in stated.get("failed", [])}
    except (LookupError, TypeError):
        raise InputError(f"{folder / 'metrics.json'} is damaged: failed") from None
    lost = [name for name in failed if not (folder / name / "metrics.json").exists()]
    yield from (Finding("note", name, f"failed in the study: {failed[name]}") for name in lost)
    runs = [run for run in study.runs if run.folder not in lost]
    for run in runs:
        try:
            findings = verify_run(folder / run.folder, where)
            found += findings
            yield from _briefly(run.folder, findings)
            if other := changed(file_layer(folder / run.folder / "config.yaml"), run.config):
                yield Finding("differs", run.folder, f"is not the run that study.json asks for: {other}")
            about = {key: getattr(run, key) for key in ("folder", "point", "seed", "fold")}
            results.append({**read_json(folder / run.folder / "metrics.json"), **about})
        except InputError as error:
            yield Finding("failed", run.folder, str(error))
    yield from _together(found)
    if len(results) < len(runs):
        return
    try:
        summary = json.loads(json.dumps(summarise(study.axes, results, stated.get("failed", []))))
        yield _compared("summary", stated, summary, said="follows from the runs")
    except (LookupError, TypeError, ValueError) as error:
        yield Finding("failed", "summary", f"a run does not state what it is made of: {error}")


def _briefly(run: str, findings: list[Finding]) -> list[Finding]:
    """One line for a run of a study that holds, and what is not equal; else those that do not."""
    named = [each._replace(what=f"{run}: {each.what}") for each in findings]
    wrong = [each for each in named if each.verdict == "differs"]
    holds = Finding("holds", run, f"{sum(each.verdict == 'holds' for each in findings)} statements")
    return wrong or [holds, *(each for each in named if not each.exact)]


def _together(findings: list[Finding]) -> Iterator[Finding]:
    """Whether as many predictions of a study turn out otherwise as may, of each split; nothing where none does."""
    for what in ("confusion_matrix", "val_accuracy"):
        turned, images = (sum(getattr(f, key) for f in findings if f.what == what) for key in ("turned", "images"))
        if turned:
            verdict = "holds" if turned <= (allowed := _allowed(images)) else "differs"
            yield Finding(verdict, f"all runs: {what}", f"{turned} of {images:,} predictions differ, {allowed} may")


def _files(folder: Path, state: dict[str, Any]) -> Iterator[Finding]:
    """The copies of what the checkpoint says, for people."""
    copies = (("checkpoint.json", read_json, state), ("config.yaml", file_layer, state["config"]))
    for name, read, told in copies:
        if (folder / name).exists():
            yield _compared(name, read(folder / name), told, said="as the checkpoint")


def _elsewhere(trained: Trained) -> list[Finding]:
    """What is not as it was where the numbers of the run were worked out."""
    here, there = provenance(None, trained.hardware), last_sitting(trained.state)
    if "precision" not in (there.get("device") or {}):  # an earlier version did not tell it
        del here["device"]["precision"]
    changes = ((key, "; ".join(_unlike(there.get(key), here[key], 0))) for key in ("device", "versions"))
    return [Finding("note", key, f"{change}; rounding may differ") for key, change in changes if change]


def _data(stated: dict[str, Any], splits: Splits) -> Iterator[Finding]:
    """That the images are those of the run, and each in the split it was in."""
    parts = (splits.train, splits.val, splits.test)
    pixels = {dataset.split: dataset.digest() for dataset in parts}
    counts = ", ".join(f"{dataset.split} {len(dataset):,}" for dataset in parts) + " images"
    kinds = (("data", pixels, "pixels and labels"), ("splits", membership(parts), "names"))
    for key, found, what in (kind for kind in kinds if kind[0] in stated):
        told = stated[key]
        if wrong := [split for split in found if not isinstance(told, dict) or told.get(split) != found[split]]:
            yield Finding("differs", key, f"{', '.join(wrong)}: other {what} than the run's")
        elif found:
            yield Finding("holds", key, counts)


def _selection(folder: Path, trained: Trained, val: FaceDataset, elsewhere: bool) -> Iterator[Finding]:
    """That the epoch is the one that the validation split selects, or the last, with the accuracy that was seen."""
    state = {key: trained.state.get(key) for key in ("epoch", "val_accuracy")}
    try:
        lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        log = [json.loads(line)["val_accuracy"] for line in lines]
        chosen = log.index(max(log)) + 1 if trained.config.select == "best" else len(log)
        selected = {"epoch": chosen, "val_accuracy": log[chosen - 1]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder / 'log.jsonl'} cannot be read: {' '.join(str(error).split())}") from None
    yield _compared("selection", state, selected, said=f"epoch {chosen} of {len(log)}, {trained.config.select}")
    _, scores = predict(trained.recogniser, val.images, trained.config.augment, trained.hardware)
    stated, found = state["val_accuracy"], loss_and_accuracy(scores, val.labels)[1]
    slack = _allowed(len(val)) / len(val) + _ROUNDING if elsewhere else 0
    finding = _compared("val_accuracy", stated, found, slack)
    turned = 0 if finding.exact else round(abs(stated - found) * len(val))
    yield finding._replace(turned=turned, images=len(val))


def _numbers(stated: dict[str, Any], found: dict[str, Any], elsewhere: bool) -> Iterator[Finding]:
    """Every number of the reported split."""
    from fer_fast.train.metrics import intervals, kinds, of_confusion  # torchmetrics takes seconds to import

    images, matrix = found["images"], torch.tensor(found["confusion_matrix"])
    allowed = _allowed(images) if elsewhere else 0
    told = _matrix(stated.get("confusion_matrix"))
    fits = told is not None and told.shape == matrix.shape and torch.equal(told.sum(1), matrix.sum(1))
    flips = int((told - matrix).abs().sum()) // 2 if fits else images
    holds = flips <= allowed
    words = f"{flips} of {images:,} predictions differ" if fits else "its images are others"
    words += f", {allowed} may" if elsewhere else ""
    yield Finding("holds" if holds else "differs", "confusion_matrix", words, flips == 0, flips if holds else 0, images)

    follows = of_confusion(told if holds else matrix, found["classes"])
    if found["intervals_by"] == "image":
        follows["intervals"] = intervals(*kinds(told if holds else matrix))
    support = matrix.sum(1)[matrix.sum(1) > 0]
    # The most that so many predictions move a mean over the classes: all of them in the smallest.
    slack = 2 * allowed / int(len(support) * support.min())
    near = {"auc": _RANKS, "auc_pr": _RANKS, "intervals": _UNITS, "calibration": _UNITS, "crops": slack}
    near |= dict.fromkeys(follows, _ROUNDING)
    for key, value in {**found, **follows}.items():
        if key in stated and key not in ("confusion_matrix", "data", "splits"):
            finding = _compared(key, stated[key], value, near.get(key, 0) if elsewhere else 0)
            other = next(_unlike(stated[key], found[key], 0), None)
            yield finding._replace(said=other, exact=False) if other and finding.verdict == "holds" else finding


def _predictions(folder: Path, found: Measured, elsewhere: bool) -> Finding:
    """That the stored predictions are those of the reported split, image by image."""
    if not (folder / PREDICTIONS).exists():  # of an earlier version
        return Finding("note", "predictions", "not there")
    stored, images = load_predictions(folder), len(found.labels)
    data, classes = found.metrics["data"].get(stored.split), tuple(found.metrics["classes"])
    if (stored.data, stored.classes) != (data, classes) or not stored.labels.equal(found.labels):
        return Finding("differs", "predictions", "its images are others")
    flips, allowed = (
        int((stored.scores.argmax(1) != found.scores.argmax(1)).sum()),
        _allowed(images) if elsewhere else 0,
    )
    said = f"{flips} of {images:,} predictions differ" + (f", {allowed} may" if elsewhere else "")
    return Finding("holds" if flips <= allowed else "differs", "predictions", said, flips == 0)


def _allowed(images: int) -> int:
    """Predictions that may be others elsewhere."""
    return max(1, images // FLIPS)


def _matrix(rows: Any) -> torch.Tensor | None:
    """A stated confusion matrix; None where it is none."""
    try:
        matrix = torch.tensor(rows)
    except (TypeError, ValueError, RuntimeError):
        return None
    return matrix if matrix.ndim == 2 and matrix.dtype == torch.int64 and (matrix >= 0).all() else None


def _compared(what: str, stated: Any, found: Any, slack: float = 0, said: str | None = None) -> Finding:
    """Whether two values are one, up to `slack` in numbers; `said` of those that are."""
    first, *others = [*_unlike(stated, found, slack), None]
    if first is None:
        if other := next(_unlike(stated, found, 0), None):
            return Finding("holds", what, other, exact=False)
        plain = f"{found:.4f}" if isinstance(found, float) else "as stated"
        return Finding("holds", what, said or plain)
    return Finding("differs", what, first + (f" (and {len(others) - 1} more)" if len(others) > 1 else ""))


def _unlike(stated: Any, found: Any, slack: float, where: str = "") -> Iterator[str]:
    """A line for every place in which two values of JSON differ."""
    if isinstance(stated, dict) and isinstance(found, dict):
        for key in dict.fromkeys((*stated, *found)):
            yield from _unlike(stated.get(key), found.get(key), slack, f"{where}{key}: ")
    elif isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        for one, other in zip(stated, found, strict=True):
            yield from _unlike(one, other, slack, where)
    elif stated != found and not (_number(stated) and _number(found) and abs(stated - found) <= slack):
        yield f"{where}stated {_short(stated)}, found {_short(found)}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 48 else f"{text[:45]}..."
