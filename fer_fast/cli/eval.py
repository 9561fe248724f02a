"""``fer-fast eval``."""

import shlex
import warnings
from argparse import Namespace
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fer_fast.cli import custom_classes
from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import print_metrics
from fer_fast.data import Drawn, FaceDataset, OnDisk
from fer_fast.data.augment import CROPS
from fer_fast.data.crossed import Crossed
from fer_fast.errors import InputError
from fer_fast.train.config import DataConfig, RunConfig
from fer_fast.train.data import load_reported, open_data
from fer_fast.train.evaluation import Trained, load_trained
from fer_fast.train.folder import STUDY
from fer_fast.train.lineage import check_evaluated
from fer_fast.train.run import evaluate_checkpoint
from fer_fast.train.study import read_study


def run(argv: list[str]) -> int:
    """Evaluate as the arguments say."""
    parser = Parser(prog="fer-fast eval", description="Evaluate a checkpoint on a dataset.")
    parser.add_argument("--checkpoint", metavar="F", required=True, help="checkpoint.safetensors or a run's folder")
    parser.add_argument("--dataset", metavar="NAME", help="default: the dataset of the run")
    parser.add_argument("--root", metavar="DIR", help="folder of the dataset (default: where it was for the run)")
    parser.add_argument("--split", default="test", help="train, val or test (default: test)")
    parser.add_argument("--fold", type=int, help="which fold is the test split, for data that is cut by subject")
    parser.add_argument("--order", metavar="NAME", help="which order the class numbers have, where nothing tells")
    parser.add_argument("--crops", type=int, choices=CROPS, help="average over so many views (default: the run's)")
    parser.add_argument(
        "--out", metavar="DIR", help="write metrics.json and report.html there; without --enrol also predictions"
    )
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    custom_classes.add_options(parser)
    given = parser.parse_args(argv)
    enrolment = custom_classes.enrolment(given)
    if (Path(given.checkpoint) / STUDY).exists():
        first = Path(given.checkpoint) / read_study(Path(given.checkpoint)).runs[0].folder
        raise InputError(f"{given.checkpoint} is a study of several runs; evaluate one of them, such as {first}")
    trained = load_trained(given.checkpoint, given.device)
    if given.crops is not None:
        trained.config.augment = replace(trained.config.augment, crops=given.crops)
    out = Path(given.out) if given.out else None
    if enrolment:
        custom_classes.run(trained, opened(given, trained.config), given.split, enrolment, out)
        return 0
    command = shlex.join(("fer-fast", "eval", *argv))
    dataset, validation, notes = _datasets(given, trained)
    seen = check_evaluated(trained.state, given.checkpoint, trained.config, dataset) if given.split == "test" else ()
    for line in seen:
        warnings.warn(line, stacklevel=2)
    told = trained.state.get("notes", ()) if validation is not None else ()  # of the run's own data
    notes = (*told, *notes, *dataset.notes, *seen)
    metrics = evaluate_checkpoint(trained, dataset, out, command=command, validation=validation, notes=notes)
    print_metrics(metrics)
    if out:
        print(f"report: {out / 'report.html'}")
    return 0


def _datasets(given: Namespace, trained: Trained) -> tuple[FaceDataset, FaceDataset | None, tuple[str, ...]]:
    """The images that are evaluated on; of a run that reports on another dataset, that one's. For a report on the test
    split of the run's own also its validation split. And what to know of the whole.
    """
    config = trained.config
    if not (config.test_dataset and given.split == "test" and given.dataset in (None, config.test_dataset)):
        wanted = given.out and given.split == "test" and given.dataset in (None, config.dataset)
        data, validation = opened(given, config), None
        dataset = data.split(given.split)
        with suppress(InputError):  # of a copy that has test images alone
            validation = data.split("val") if wanted else None
        return dataset, validation, data.notes
    config.test_root, config.data.fold = given.root or config.test_root, given.fold
    if given.order is not None:
        config.data.options.setdefault(config.test_dataset, {})["order"] = given.order
    return load_reported(config, trained.classes), None, ()


def opened(given: Namespace, config: RunConfig) -> Drawn | OnDisk | Crossed:
    """The dataset that the options ask for, read as the run has it where it is the run's."""
    data = config.data
    if given.dataset not in (None, config.dataset):  # what was said of the copy trained on does not hold for another
        config.dataset, config.root, config.test_dataset, config.test_root = given.dataset, given.root, None, None
        config.data = DataConfig(data.image_size, data.channels, options=data.options)
    else:
        _check_fold(given.fold, config)
        if given.root:
            config.root, data.order = given.root, None
    if given.fold is not None:
        config.data.fold = given.fold
    if given.order is not None:
        config.data.order = given.order
    opened = open_data(config)
    return opened.trained if given.dataset and isinstance(opened, Crossed) else opened


def _check_fold(fold: int | None, config: RunConfig) -> None:
    """Refuse another fold of the run's own dataset than the run's own: it is not unseen."""
    if not config.test_dataset and fold not in (None, own := config.data.fold or 1):  # which else has no folds
        raise InputError(
            f"fold is {fold}; of {config.dataset} only fold {own} is unseen by this run: the images of the others were "
            "trained on or selected the epoch; leave --fold out"
        )
