"""``fer-fast train``."""

import argparse
import shlex
from pathlib import Path
from typing import Any

import torch

from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import print_metrics
from fer_fast.errors import InputError
from fer_fast.train.checkpoint import RESUME, load_resume
from fer_fast.train.config import config_parser, file_layer, recipe_layer, resolve
from fer_fast.train.folder import fresh_folder, latest_folder
from fer_fast.train.idle import refuse_idle
from fer_fast.train.run import train

USAGE = """fer-fast train [--recipe NAME] [--dataset NAME] [--root DIR] [--backbone NAME] [--loss NAME]
                      [--epochs N] [--out DIR] [--seed N] [--resume] [--config FILE] [--GROUP.KEY VALUE ...]"""
DESCRIPTION = """Train a model, evaluate it on the test split, and leave config.yaml, log.jsonl, a checkpoint,
metrics.json and report.html in the run's folder. Without options: the quick recipe on generated faces. A key takes its
value from the last of: defaults, recipe, --config FILE, options."""


def run(argv: list[str]) -> int:
    """Train as the arguments say."""
    # Recipe and file are what the other options are laid over, so they are looked for first.
    early = Parser(add_help=False)
    early.add_argument("--recipe")
    _add_run_options(early)
    given, _ = early.parse_known_args(argv)
    out = Path(given.out) if given.out else None
    if given.resume and out is None:
        out = latest_folder(given.recipe or "quick")
    parser = config_parser(prog="fer-fast train", usage=USAGE, description=DESCRIPTION)
    _add_run_options(parser)
    layers = _layers(given, out)
    config, _ = resolve(parser, argv, layers)
    if not given.resume:  # a resumed run was begun with what it has
        refuse_idle(config, argv, *layers)
    out = out or fresh_folder(config.recipe)
    try:
        metrics = train(config, out, resume=given.resume, command=shlex.join(("fer-fast", "train", *argv)))
    except KeyboardInterrupt:
        kept = f"continue with: fer-fast train --resume --out {out}" if (out / RESUME).exists() else ""
        raise KeyboardInterrupt(kept) from None
    except torch.OutOfMemoryError:
        hint = f"try a batch_size below {config.batch_size}, with virtual_batch"
        raise InputError(f"out of device memory: {hint}") from None
    print_metrics(metrics)
    print(f"report: {out / 'report.html'}")
    return 0


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file of configuration keys, e.g. config.yaml of a run")
    parser.add_argument("--out", metavar="DIR", help="folder of the run; by itself the next free runs/<recipe>-<n>")
    help_resume = "continue the run in --out, or the latest of the recipe; a finished one with more --epochs"
    parser.add_argument("--resume", action="store_true", help=help_resume)


def _layers(given: argparse.Namespace, out: Path | None) -> list[dict[str, Any]]:
    """What the options are laid over: the resumed run's configuration, or recipe and file."""
    if given.resume and not given.recipe and not given.config:
        return [load_resume(out, tensors=False)[1]["config"]]
    file = file_layer(given.config) if given.config else {}
    return [recipe_layer(given.recipe or file.get("recipe", "quick")), file]
