"""A step in a CUDA graph, and streams; on a CPU, which has neither, the step itself."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ..contenders import Contender, Step
from ..problems import Inputs, Problem
from .engines import OURS

WARM_UPS = 3  # on the side stream, as PyTorch asks before a capture


class Captured:
    """A step recorded once, to be replayed; `outputs` are written anew by every replay."""

    def __init__(self, step: Step, device: torch.device):
        self.step, self.outputs, self.graph = step, {}, None
        if device.type != "cuda":
            return
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                step()
        torch.cuda.current_stream(device).wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = step()

    def replay(self) -> None:
        """Run the step again on the tensors it was recorded with."""
        if self.graph is None:
            self.outputs = self.step()
        else:
            self.graph.replay()


def _replayed(problem: Problem, inputs: Inputs) -> Step:
    """Ours as a graph: what the device takes, without the host. Recording it leaves the centers where they were."""
    centers = inputs.tensors.get("centers")
    before = None if centers is None else centers.clone()
    recorded = Captured(OURS.bind(problem, inputs), inputs.tensors["y"].device)
    if centers is not None:
        centers.copy_(before)

    def replay() -> dict[str, Tensor]:
        recorded.replay()
        return recorded.outputs

    return replay


CAPTURED = Contender("captured", _replayed, backend=lambda device: "triton", package="fer-fast")


def streams(device: torch.device, count: int) -> list[AbstractContextManager]:
    """So many streams to be entered again and again, which begin after the work that is under way."""
    if device.type != "cuda":
        return [nullcontext()] * count
    torch.cuda.synchronize(device)
    return [torch.cuda.stream(torch.cuda.Stream(device)) for _ in range(count)]


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
