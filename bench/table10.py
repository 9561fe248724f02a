"""`python -m bench table10`: seconds a training step, and their ratio to softmax, after Table 10 of Pham et al. 2023.

Forward, backward and an SGD step on a batch of 64 random gray 64×64 images; the loss is softmax + 0.001 · the named
one, in plain PyTorch (the reference) and in this library, in turns in one process. The paper's seconds are for whole
runs on FER2013 on its own machine: only their ratios compare.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from fer_fast import losses
from fer_fast.cli.parser import Parser
from fer_fast.registry import find
from fer_fast.suggest import one_of
from fer_fast.train.backbones import BACKBONES, build_backbone

from . import rows
from .measure import stopwatch

BATCH, SIDE, CLASSES, WEIGHT = 64, 64, 7, 0.001
PAPER_LOSSES = ("softmax", "center", "range", "marginal", "variant")
LOSSES = (*PAPER_LOSSES, "weighted-softmax", "lmcl", "a-softmax", "l-softmax", "island", "weighted-cluster", "affinity")
PAPER_SECONDS = {  # Table 10, FER2013 columns, in the order of PAPER_LOSSES
    "alexnet": (150, 157, 2619, 15222, 163),
    "googlenet": (1529, 1621, 9238, 46090, 1677),
    "densenet121": (2036, 2050, 12113, 62438, 2177),
    "resnet18": (568, 600, 5774, 30686, 601),
    "mobilenetv3": (3215, 2415, 14283, 83618, 2943),
    "resnest50": (4108, 10969, 64143, 197333, 14004),
}


@dataclass(frozen=True)
class StepRow:
    """Median seconds of a step with one loss; `ratio` is to softmax on the same backend, `paper` the paper's."""

    table: str
    backbone: str
    loss: str
    backend: str
    seconds: float
    ratio: float
    paper: float | None
    rounds: int
    environment: dict[str, Any]


def run(argv: list[str]) -> int:
    """Measure as the arguments say and print the table."""
    parser = Parser(prog="python -m bench table10", description=__doc__)
    parser.add_argument("--backbone", action="append", help="one backbone (may be repeated; default: the paper's six)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each loss (default: 7)")
    parser.add_argument("--threads", type=int, help="threads of PyTorch on a CPU")
    parser.add_argument("--out", metavar="FILE", help="append the rows to a file, one JSON object a line")
    given = parser.parse_args(argv)
    if given.threads:
        torch.set_num_threads(given.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    console = Console(highlight=False)
    for name in given.backbone or PAPER_SECONDS:
        one_of(name, BACKBONES, "--backbone")
        # All losses on the backbone the target is stated for; the paper's five on the others.
        measured = measure(name, LOSSES if name == "resnet18" else PAPER_LOSSES, device, given.rounds)
        console.print(table(name, measured))
        if given.out:
            rows.append(Path(given.out), measured)
    return 0


def measure(backbone: str, names: tuple[str, ...], device: torch.device, rounds: int) -> list[StepRow]:
    """Every loss on both backends in turns: what disturbs the machine disturbs all of them."""
    torch.manual_seed(0)
    network = build_backbone(backbone, channels=1).to(device)
    images = torch.randn(BATCH, 1, SIDE, SIDE, device=device)
    labels = torch.arange(BATCH, device=device) % CLASSES
    steps = {
        (name, backend): _step(network, images, labels, _objective(name, network.info.feature_dim, backend).to(device))
        for name in names
        for backend in ("reference", "auto")
    }
    for step in steps.values():
        step()
    taken = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            taken[key].append(stopwatch(step, device))
    medians = {key: statistics.median(times) for key, times in taken.items()}
    paper = dict(zip(PAPER_LOSSES, PAPER_SECONDS.get(backbone, ()), strict=False))
    environment = rows.environment(device)
    return [
        StepRow(
            "table10",
            backbone,
            name,
            backend,
            seconds,
            seconds / medians["softmax", backend],
            paper[name] / paper["softmax"] if name in paper else None,
            rounds,
            environment,
        )
        for (name, backend), seconds in medians.items()
    ]


def _objective(name: str, feature_dim: int, backend: str) -> nn.Module:
    spec = find(name)
    cls = getattr(losses, spec.cls)
    weights = {"class_weights": torch.ones(CLASSES)} if name.startswith("weighted") else {}
    if spec.family == "classifier":
        return cls(CLASSES, feature_dim, **weights, backend=backend)
    sizes = (CLASSES, feature_dim) if spec.family == "center" else ()
    auxiliary = cls(*sizes, **weights, backend=backend)
    return losses.JointLoss(losses.SoftmaxLoss(CLASSES, feature_dim, backend=backend), auxiliary, WEIGHT)


def _step(network: nn.Module, images, labels, objective: nn.Module) -> Callable[[], None]:
    optimiser = torch.optim.SGD([*network.parameters(), *objective.parameters()], lr=1e-4)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        objective(network(images), labels).backward()
        optimiser.step()

    return step


def table(backbone: str, measured: list[StepRow]) -> Table:
    """One line a loss: seconds and ratio to softmax of plain PyTorch, of this library, and the paper's ratio."""
    result = Table("loss", "plain, s", "x softmax", "fer-fast, s", "x softmax", "paper, x softmax", title=backbone)
    plain = {row.loss: row for row in measured if row.backend == "reference"}
    for ours in (row for row in measured if row.backend == "auto"):
        other = plain[ours.loss]
        paper = "" if ours.paper is None else f"{ours.paper:.2f}"
        cells = (f"{other.seconds:.3f}", f"{other.ratio:.2f}", f"{ours.seconds:.3f}", f"{ours.ratio:.2f}", paper)
        result.add_row(ours.loss, *cells)
    return result
