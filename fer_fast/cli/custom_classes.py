"""``fer-fast eval --enrol``: classes that a model was not trained on."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from fer_fast.cli.summary import print_table
from fer_fast.data import Drawn, OnDisk
from fer_fast.data.crossed import Crossed
from fer_fast.errors import InputError
from fer_fast.serve.custom_classes import Enrolment, evaluate_enrolment
from fer_fast.train.evaluation import Trained

MOST = 2  # names that are told of what was nearest before


def add_options(parser: ArgumentParser) -> None:
    """The options of custom classes."""
    group = parser.add_argument_group("custom classes, of lmcl and other classifiers by direction")
    enrol = "recognise the classes of the dataset by N images of each, drawn from train"
    group.add_argument("--enrol", metavar="N", type=int, help=enrol)
    group.add_argument("--threshold", metavar="T", type=float, help="cosine below which it is unknown (default: 0.6)")
    group.add_argument("--verify", metavar="N", type=int, help="images of each class to recognise (default: all)")
    group.add_argument("--seed", metavar="S", type=int, help="decides which images are drawn (default: 0)")


def enrolment(given: Namespace) -> Enrolment | None:
    """What the options ask for; None where no class is enrolled.

    Raises:
        InputError: a number out of range, an option that does nothing, or images that were enrolled already.
    """
    options = {name: getattr(given, name) for name in ("threshold", "verify", "seed")}
    options = {name: value for name, value in options.items() if value is not None}
    if given.enrol is None:
        if options:
            raise InputError(f"--{next(iter(options))} does nothing without --enrol")
        return None
    if given.split == "train":
        raise InputError("images of train are enrolled, so they cannot be recognised; --split is val or test")
    return Enrolment(given.enrol, **options)


def run(trained: Trained, data: Drawn | OnDisk | Crossed, split: str, how: Enrolment, out: Path | None) -> None:
    """Enrol, recognise and print."""
    metrics = evaluate_enrolment(trained, data.split("train"), data.split(split), how, out)
    classes = len(metrics["classes"])
    print(f"\n{classes} classes, each enrolled by {how.samples} images of train, threshold {how.threshold:g}")
    print(f"{split} ({metrics['images']} images), {metrics['seconds']:.0f} s")
    numbers = {**metrics, "unknown": metrics["enrol"]["unknown"]}
    print("  ".join(f"{key} {numbers[key]:.4f}" for key in ("accuracy", "average_accuracy", "unknown")))
    before, after = metrics["before"], metrics["after"]
    rows = (
        (
            name,
            *(_share(row[key]) for key in ("recall", "unknown")),
            _share(after["per_class"][name]["recall"]),
            _called(counts, before["classes"]),
            str(row["support"]),
        )
        for (name, row), counts in zip(metrics["per_class"].items(), before["confusion_matrix"], strict=True)
    )
    among = f"recall among {len(after['classes'])}"
    columns = ("class", "recall", "unknown", among, "nearest before", "support")
    print_table(columns, rows, right=("recall", "unknown", among, "support"))
    print(f"among all {len(after['classes'])}: average_accuracy {after['average_accuracy']:.4f}")
    if out:
        print(f"metrics: {out / 'metrics.json'}\nreport: {out / 'report.html'}")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _called(counts: list[int], names: list[str]) -> str:
    """The classes that are nearest to most images of one, with their shares."""
    most = sorted(zip(counts, names, strict=True), key=lambda pair: -pair[0])[:MOST]
    return ", ".join(f"{name} {count / sum(counts):.0%}" for count, name in most if count) or "-"
