"""The model card beside an exported model, as Hugging Face reads it: what it is, of what data, how good, for what."""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fer_fast import registry
from fer_fast.data.sources import DATASETS
from fer_fast.data.table import page
from fer_fast.errors import InputError
from fer_fast.serve.model import FaceModel
from fer_fast.serve.usage import usage
from fer_fast.train.checkpoint import read_json
from fer_fast.train.metrics import CONFIDENCE, RESAMPLES
from fer_fast.train.objective import plan_losses
from fer_fast.train.papers import PAPERS, Paper, load_paper

CARD = "README.md"

_MARK = "<!-- fer-fast export: model {}, text {} -->\n"
_NAMES = {  # number of a run: what people call it, and Hugging Face's type of it
    "accuracy": ("accuracy", "accuracy"),
    "average_accuracy": ("mean recall of the classes", "recall"),
    "macro_f1": ("macro F1", "f1"),
}


class Card:
    """The card of one model.

    Args:
        model: which.
        about: what its file says of itself, as `fer_fast.serve.export.describe` gives it.
        checkpoint: where it lies; the metrics.json of its run is read beside it.
        files: names of the exported files beside the card.

    Raises:
        InputError: metrics.json is damaged.
    """

    def __init__(self, model: FaceModel, about: dict[str, Any], checkpoint: str | Path, files: Sequence[str]):
        self.model, self.about, self.files = model, about, files
        self.config, self.state = model.trained.config, model.trained.state
        self.datasets = [*dict.fromkeys(name for name in (self.config.dataset, self.config.test_dataset) if name)]
        folder = Path(checkpoint)
        self.metrics = _metrics((folder if folder.is_dir() else folder.parent) / "metrics.json", about["weights"])

    def text(self) -> str:
        """The whole of it, with a last line by which `check_card` knows it again."""
        front = yaml.safe_dump(self._front(), sort_keys=False, allow_unicode=True)
        parts = [f"---\n{front}---\n\n# {self.title}\n\n{self._what()}\n"]
        sections = {
            "Use": usage(self.files, self.about),
            "Data": self._data(),
            "Results": self._results(),
            "Limits": self._limits(),
            "Licence": self._licence(),
            "How to cite": self._cite(),
        }
        text = "\n".join([*parts, *(f"## {name}\n\n{body}\n" for name, body in sections.items())]) + "\n"
        return text + _MARK.format(_model(self.about), _digest(text))

    @property
    def title(self) -> str:
        return f"{self.config.backbone}, {self.config.loss} loss, trained on {self.config.dataset}"

    @cached_property
    def _losses(self) -> list[str]:
        plan = plan_losses(self.config)
        return [plan.classifier, *plan.auxiliary]

    def _front(self) -> dict[str, Any]:
        drawn = all(name in DATASETS and DATASETS[name].draw for name in self.datasets)
        kinds = ["onnx" if name.endswith(".onnx") else "pytorch" for name in self.files]
        front: dict[str, Any] = (
            {"license": "mit"} if drawn else {"license": "other", "license_name": "terms-of-the-data"}
        )
        front |= {
            "library_name": kinds[0],
            "pipeline_tag": "image-classification",
            "tags": ["facial-expression-recognition", "emotion-recognition", "fer-fast", *kinds],
            "datasets": self.datasets,
            "metrics": [kind for _, kind in _NAMES.values()],
        }
        if self.metrics:
            front["model-index"] = [{"name": self.title, "results": [self._index(self.metrics)]}]
        return front

    def _index(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """The numbers as a leaderboard reads them."""
        measured = self.config.test_dataset or self.config.dataset
        return {
            "task": {"type": "image-classification", "name": "Facial expression recognition"},
            "dataset": {"type": measured, "name": measured, "split": metrics["split"]},
            "metrics": [
                {"type": kind, "name": name, "value": round(metrics[key], 6)} for key, (name, kind) in _NAMES.items()
            ],
        }

    def _what(self) -> str:
        config, about = self.config, self.about
        side, channels = about["input"]["side"], about["input"]["channels"]
        threshold = self.model.threshold
        unknown = "" if threshold is None else f" A face is unknown where no cosine exceeds {threshold:g}."
        return (
            f"Names the expression of a face: {_listed(about['classes'])}. A {config.backbone} trained with "
            f"{_listed(self._losses)} loss (recipe {config.recipe}), on {channels} images of {side}×{side} pixels."
            f"{unknown} Exported by fer-fast {about['fer_fast']}, weights {about['weights'][:16]}; preparation of "
            "pixels, normalisation and softmax are in the graph."
        )

    def _data(self) -> str:
        lines = []
        for name in self.datasets:
            if name in DATASETS:
                lines.append(f"**{name}**: {_opening(page(name))}")
            else:
                lines.append(f"**{name}**")
        digests = self.state.get("data", {})
        if digests:
            lines.append("SHA-256 of images and labels, by which `fer-fast verify` knows them again:")
            lines.append("\n".join(f"- {split}: `{digest}`" for split, digest in digests.items()))
        if self.config.model.weights:
            lines.append(f"Training started from the weights in `{Path(self.config.model.weights).name}`.")
        if enrolled := self.state.get("enrolled"):
            added = dict.fromkeys(f"{entry['name']} ({entry['samples']} photos)" for entry in enrolled)
            lines.append(f"Without training, from photos of their own: {_listed(list(added))}.")
        if notes := self.state.get("notes"):
            lines.append("Of the copy that it was trained on:")
            lines.append("\n".join(f"- {note}" for note in notes))
        return "\n\n".join(lines)

    def _results(self) -> str:
        metrics = self.metrics
        if not metrics:
            return "There are none: no metrics.json of these weights lay beside the checkpoint."
        unit = metrics.get("intervals_by", "image")
        precision = metrics.get("device", {}).get("precision", "float32")
        head = (
            f"On {metrics['images']:,} images of the {metrics['split']} split of "
            f"{self.config.test_dataset or self.config.dataset}, in {precision}; exported files compute in float32. "
            f"Intervals are {100 * CONFIDENCE:g} %, percentile bootstrap over {RESAMPLES:,} resamples by {unit}; they "
            f"tell how few the {unit}s are, not how another camera would do."
        )
        table = [f"| | value | {100 * CONFIDENCE:g} % interval |", "|---|---|---|"]
        for key, (name, _) in _NAMES.items():
            low, high = metrics["intervals"][key]
            table.append(f"| {name} | {metrics[key]:.4f} | {low:.4f} to {high:.4f} |")
        rows = ["| class | precision | recall | F1 | images |", "|---|---|---|---|---|"]
        for name, row in metrics["per_class"].items():
            numbers = (row["precision"], row["recall"], row["f1"])
            rows.append(f"| {name} | {' | '.join(map(_number, numbers))} | {row['support']} |")
        name, row = max(metrics["per_class"].items(), key=lambda item: item[1]["support"])
        chance = f"Always answering {name} has an accuracy of {row['support'] / metrics['images']:.4f}."
        return "\n\n".join((head, "\n".join(table), chance, "\n".join(rows)))

    def _calibrated(self) -> str:
        known = (self.metrics or {}).get("calibration")
        if not known:
            return "; nobody made sure that a score of 0.8 is right in 8 of 10 cases"
        off = f", off by {known['ece']:.3f} on average (expected calibration error)"
        if "temperature" in known:
            off += f"; by {known['ece_tempered']:.3f} as softmax(log(scores) / {known['temperature']:.2f})"
        return off

    def _limits(self) -> str:
        lines = [
            "It says what a face looks like to the people who labelled the data, not what a person feels or means; the "
            "same expression means different things in different people, situations and cultures. Not for decisions "
            "about people.",
            f"It always answers with one of its {len(self.about['classes'])} classes, whatever it is shown"
            + (
                ", or unknown below the threshold."
                if self.model.threshold is not None
                else ", also where there is no face."
            ),
            f"Scores are probabilities of the softmax{self._calibrated()}.",
            "The data tell neither age nor sex nor origin of people; how well it does on a group of them is unknown.",
            "Faces are to be cut as it was trained on them (`preparation` in the file); others lower its accuracy.",
        ]
        if self.metrics:
            counts = {name: row["support"] for name, row in self.metrics["per_class"].items()}
            few = [
                f"{name} ({count})" for name, count in counts.items() if 2 * count * len(counts) < sum(counts.values())
            ]
            if few:
                lines.append(f"Classes with less than half their share of the images it was tested on: {_listed(few)}.")
            if unseen := [name for name in self.about["classes"] if not counts.get(name)]:
                lines.append(f"Not tested on: {_listed(unseen)}.")
        return "\n".join(f"- {line}" for line in lines)

    def _licence(self) -> str:
        lines = [
            f"- {name}: {DATASETS[name].licence or _section(page(name), 'Licence')}"
            for name in self.datasets
            if name in DATASETS
        ]
        return (
            "fer-fast is under the MIT licence. What the weights may be used for depends on the terms of the data they "
            "were trained on; whoever publishes them has to see to that:\n\n" + "\n".join(lines)
        )

    def _cite(self) -> str:
        labels = [registry.find(name).paper for name in self._losses if name != "softmax"]
        papers = {name: load_paper(name) for name in PAPERS}
        texts = [
            next((_reference(paper) for paper in papers.values() if label.startswith(_author(paper))), label)
            for label in labels
        ]
        if (recipe := self.config.recipe.partition("/")[0]) in papers:
            texts.append(_reference(papers[recipe]))
        texts.append(f"fer-fast {self.about['fer_fast']}, the program that trained it")
        return "\n".join(f"- {text}" for text in dict.fromkeys(texts))


def check_card(path: Path, about: dict[str, Any], force: bool) -> bool:
    """Whether an earlier export wrote this card, of the same model.

    Raises:
        InputError: what is there was written by somebody else, was edited since, or is of another model and may not go.
    """
    if not path.exists():
        return False
    try:
        text, _, mark = path.read_text(encoding="utf-8").rpartition("<!--")
    except (OSError, UnicodeDecodeError):
        text = mark = ""
    found = re.fullmatch(_MARK.removeprefix("<!--").format("(.*)", "(.*)"), mark)
    if found is None or found[2] != _digest(text):
        raise InputError(f"{path} is not as fer-fast export writes it and stays; move it, or choose another --out")
    if found[1] != _model(about) and not force:
        raise InputError(f"{path} is of other weights or another threshold; --force replaces it")
    return found[1] == _model(about)


def _model(about: dict[str, Any]) -> str:
    return _digest(json.dumps(about, sort_keys=True))


def _metrics(path: Path, weights: str) -> dict[str, Any] | None:
    """The numbers of these weights, where the run's folder has them."""
    if not path.is_file():
        return None
    metrics = read_json(path)
    return metrics if metrics.get("weights") == weights and "intervals" in metrics else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _opening(text: str) -> str:
    """The first paragraph of a dataset's page, below its title."""
    return " ".join(text.split("\n\n")[1].split())


def _author(paper: Paper) -> str:
    return f"{paper.authors} {paper.year}"


def _reference(paper: Paper) -> str:
    return f"{_author(paper)}: {paper.title}"


def _section(text: str, heading: str) -> str:
    """What a dataset's page says below a heading, in one line."""
    return " ".join(text.partition(f"## {heading}\n")[2].split("\n\n")[0].split())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
