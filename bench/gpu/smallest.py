"""One step of losses, for a tool that watches a program from outside: `python -m fer_fast.bench.gpu.smallest JSON`.

The tool sees everything; between `cudaProfilerStart` and `Stop` lie the launches of one step alone.
"""

import json
import sys
from dataclasses import dataclass

import torch

from ..problems import Shape
from .capture import wait
from .engines import OURS
from .shapes import problem


@dataclass(frozen=True)
class Watched:
    """Losses at a shape, on a device."""

    losses: list[str]
    shape: dict[str, int]
    dtype: str
    device: str
    mark: bool = False  # whether a profiler waits for the marks


def launch(asked: Watched) -> None:
    """A step of each loss, twice where a profiler waits: what comes before its marks compiles."""
    device = torch.device(asked.device)
    for loss in asked.losses:
        given = problem(loss, Shape(**asked.shape), asked.dtype)
        step = OURS.bind(given, given.inputs(device))
        step()
        wait(device)
        if asked.mark and device.type == "cuda":
            torch.cuda.profiler.start()
            step()
            wait(device)
            torch.cuda.profiler.stop()
        print(loss, flush=True)


if __name__ == "__main__":
    launch(Watched(**json.loads(sys.argv[1])))
