"""``fer-fast eval``."""

import shlex
from dataclasses import replace
from pathlib import Path

from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import print_metrics
from fer_fast.data.augment import CROPS
from fer_fast.train.config import DataConfig
from fer_fast.train.data import open_data
from fer_fast.train.evaluation import load_trained
from fer_fast.train.run import evaluate_checkpoint


def run(argv: list[str]) -> int:
    """Evaluate as the arguments say."""
    parser = Parser(prog="fer-fast eval", description="Evaluate a checkpoint on a dataset.")
    parser.add_argument("--checkpoint", metavar="F", required=True, help="checkpoint.safetensors or a run's folder")
    parser.add_argument("--dataset", metavar="NAME", help="default: the dataset the checkpoint was trained on")
    parser.add_argument("--root", metavar="DIR", help="folder of the dataset (default: where it was for training)")
    parser.add_argument("--split", default="test", help="train, val or test (default: test)")
    parser.add_argument("--fold", type=int, help="which fold is the test split, for data that is cut by subject")
    parser.add_argument("--order", metavar="NAME", help="which order the class numbers have, where nothing tells")
    parser.add_argument("--crops", type=int, choices=CROPS, help="average over so many views (default: the run's)")
    parser.add_argument("--out", metavar="DIR", help="write metrics.json and report.html there")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    given = parser.parse_args(argv)
    trained = load_trained(given.checkpoint, given.device)
    config = trained.config
    data = config.data
    if given.dataset not in (None, config.dataset):  # what was said of the copy trained on does not hold for another
        config.dataset, config.root = given.dataset, given.root
        config.data = DataConfig(data.image_size, data.channels, options=data.options)
    elif given.root:
        config.root, data.order = given.root, None
    if given.fold is not None:
        config.data.fold = given.fold
    if given.order is not None:
        config.data.order = given.order
    if given.crops is not None:
        config.augment = replace(config.augment, crops=given.crops)
    out = Path(given.out) if given.out else None
    command = shlex.join(("fer-fast", "eval", *argv))
    metrics = evaluate_checkpoint(trained, open_data(config).split(given.split), out, command=command)
    print_metrics(metrics)
    if out:
        print(f"report: {out / 'report.html'}")
    return 0
