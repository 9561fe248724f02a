"""One optimiser step: what it does, and how a GPU repeats it without the host."""

import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fer_fast.data.augment import Augment
from fer_fast.errors import InputError
from fer_fast.train.config import OptimiserConfig, RunConfig
from fer_fast.train.hardware import Hardware
from fer_fast.train.learner import Learner
from fer_fast.train.models import encode
from fer_fast.train.processes import ALONE, Processes

WARM_UP = 3  # steps of one kind before it is captured, as PyTorch asks; they are steps like any other


class Share(NamedTuple):
    """What a process has of a batch: all of it where it is alone.

    Attributes:
        pixels: uint8 (n, channels, height, width).
        labels: (n,).
        first, total: place of the first of the n among those of all processes, and how many these are.
    """

    pixels: Tensor
    labels: Tensor
    first: int
    total: int


Batches = Sequence[Share]

# Fused: one pass over each tensor in place of a dozen; a tenth to a fifth of a step on a CPU.
OPTIMISERS: dict[str, Callable[[list[dict], OptimiserConfig, bool], torch.optim.Optimizer]] = {
    "sgd": lambda groups, c, _: torch.optim.SGD(groups, c.rate, c.momentum, nesterov=c.nesterov, fused=True),
    "adam": lambda groups, c, captured: torch.optim.Adam(groups, c.rate, c.betas, fused=True, capturable=captured),
    "adamw": lambda groups, c, captured: torch.optim.AdamW(groups, c.rate, c.betas, fused=True, capturable=captured),
}


def replays(config: RunConfig, hardware: Hardware, processes: Processes = ALONE) -> bool:
    """Whether the steps of a run are to be replayed from a CUDA graph.

    Raises:
        InputError: `hardware.compile` asks for what cannot be.
    """
    wanted, faults = config.hardware.compile, []
    if processes.count > 1 and config.virtual_batch > 1:
        raise InputError(
            f"virtual_batch {config.virtual_batch} is for one process; on {processes.count} a batch_size of "
            f"{config.loss_batch} gives the same loss"
        )
    if config.virtual_batch > 1:
        faults.append("cannot repeat a virtual batch, which computes parts of a step twice")
    compiles = wanted == "network" and not faults  # a network is compiled where its steps cannot be replayed, too
    if processes.count > 1:
        faults.append("cannot repeat what processes tell each other")
    if hardware.device.type != "cuda":
        faults.append(f"needs a CUDA device, not {hardware.device}")
    if hardware.scales_gradients:
        faults.append("cannot repeat float16, whose gradient scaler asks the host; bfloat16 needs none")
    if faults and wanted in ("graph", "network") and not compiles:
        raise InputError(f"hardware.compile {wanted} {faults[0]}; auto and none train without it")
    return wanted != "none" and not faults


class Update:
    """One optimiser step: views, network, losses, backward, clipping, weights, key encoder and bank.

    Called with the batches of a step, it does to the device what follows from them and from tensors that stay where
    they are. Whatever else changes from step to step is on the device as well (the rate, the state of the generator,
    the totals) or is told by the bank's `replay_key`; so the same kernels can be replayed.

    Args:
        config: of the run.
        learner: what learns, placed on the device.
        hardware: where.
        replayed: whether steps will be replayed: the optimiser then reads the rate from the device.
    """

    def __init__(self, config: RunConfig, learner: Learner, hardware: Hardware, replayed: bool):
        self.learner, self.hardware, self.clip = learner, hardware, config.optimiser.clip
        self.parallel: nn.Module = learner
        self.locally: Callable[[], AbstractContextManager] = nullcontext
        self.optimiser = OPTIMISERS[config.optimiser.name](
            learner.parameter_groups(config.optimiser), config.optimiser, replayed
        )
        self.parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        self.scaler = torch.amp.GradScaler(hardware.device.type, enabled=hardware.scales_gradients)
        self.augment = Augment(config.augment)
        self.generator = torch.Generator(hardware.device)
        self.running = Running(hardware.device)
        self.device_rate = torch.zeros((), device=hardware.device) if replayed else None
        self.whole = config.loss_batch
        self.encode = encode
        if config.hardware.compile == "network":
            torch.compiler.reset()  # or the networks of earlier runs count against its limit
            # Not the module: its parameters keep their names. A batch of another size would be compiled anew.
            self.encode = torch.compile(encode, dynamic=False)

    def join(self) -> None:
        """From now on losses, gradients and the bank are those of all processes, and each is given its share."""
        from fer_fast.distributed import over  # which one process has no use for

        over(self.learner)
        ddp = nn.parallel.DistributedDataParallel
        # Statistics of BatchNorm are the same already, or each process's own until they are averaged.
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in inspect.signature(ddp).parameters else None
        self.parallel = ddp(self.learner, **{buffers or "broadcast_buffers": False})
        # Of filters of 1x1, whose strides say the same in two ways; such a gradient is copied.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        self.locally = self.parallel.no_sync

    def set_rate(self, rate: float) -> None:
        """The learning rate of the steps to come."""
        if self.device_rate is not None:
            self.device_rate.fill_(rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate if self.device_rate is None else self.device_rate

    def __call__(self, batches: Batches) -> None:
        images = sum(batch.total for batch in batches)
        self.optimiser.zero_grad(set_to_none=True)
        for batch in batches:
            pixels, labels, *place = batch
            views = [
                self.hardware.layout(self.augment(pixels, self.generator, *place)) for _ in range(self.learner.views)
            ]
            with nullcontext() if batch is batches[-1] else self.locally():
                with self.hardware.autocast():
                    loss, predictions, keys = self.parallel(
                        views, labels, self.encode if batch.total == self.whole else encode
                    )
                self.scaler.scale(loss * (batch.total / images)).backward()
            self.learner.remember(keys, labels)
            self.running.update(loss.detach(), predictions, labels, batch.total)
        if self.clip:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.learner.after_step()


class Replay:
    """Updates replayed from a CUDA graph: those of the kind that was the first to come more than `WARM_UP` times.

    Updates are of one kind if their batches have the same sizes and the bank's groups the same length; a ragged last
    batch, say, is of another kind, and runs as it would without a graph. A capture executes nothing. All work has to be
    on one stream that is not the default one.

    Args:
        update: what an update does.
        required: whether a capture that fails ends the run; else it goes on without.
    """

    def __init__(self, update: Update, required: bool):
        self.update, self.required = update, required
        self.seen: Counter[Hashable] = Counter()  # updates of each kind before the capture
        self.graph: Graph | None = None
        self.kind: Hashable = None  # of what the graph holds
        self.held: Batches = ()  # what the graph reads
        self.failed = False
        self.count = 0  # updates that were replayed

    def __call__(self, batches: Batches) -> None:
        bank = self.update.learner.bank
        kind = (*(batch.total for batch in batches), None if bank is None else bank.replay_key)
        if self.graph is None and not self.failed:
            self.seen[kind] += 1
            if self.seen[kind] > WARM_UP:
                self._capture(batches, kind)
        if self.graph is None or kind != self.kind:
            self.update(batches)
            return
        for held, given in zip(self.held, batches, strict=True):
            held.pixels.copy_(given.pixels)
            held.labels.copy_(given.labels)
        self.graph.replay()
        self.count += 1

    def _capture(self, batches: Batches, kind: Hashable) -> None:
        self.held = [batch._replace(pixels=batch.pixels.clone(), labels=batch.labels.clone()) for batch in batches]
        graph = Graph(self.update.generator)
        try:
            graph.capture(lambda: self.update(self.held))
            self.graph, self.kind = graph, kind
        except RuntimeError as error:
            self.failed = True
            reason = (str(error.__context__ or error).strip().splitlines() or [type(error).__name__])[0]
            if self.required:
                raise InputError(
                    f"hardware.compile: a step could not be captured in a CUDA graph: {reason}; auto trains without"
                ) from error
            warnings.warn(f"training goes on without a CUDA graph, which a step did not fit: {reason}", stacklevel=2)


class Graph:
    """Work on the current stream, captured once.

    Args:
        generator: the random numbers of the work beside those of the device's default generator. A replay draws from
            the states that both have by then, and moves them on, as the work itself would.
    """

    def __init__(self, generator: torch.Generator):
        with torch.cuda.device(generator.device):  # "cuda" alone names no number
            of_device = torch.cuda.default_generators[torch.cuda.current_device()]
        self._generators = (generator, of_device)
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(generator)
        self.replay = self._graph.replay

    def capture(self, work: Callable[[], None]) -> None:
        """Record what `work` launches.

        Raises:
            RuntimeError: something in it cannot be captured; all is as it was before.
        """
        stream = torch.cuda.current_stream(self._generators[0].device)
        states = [generator.clone_state() for generator in self._generators]
        try:
            # Only this thread's calls count: the thread that feeds images goes on.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError:
            for generator, state in zip(self._generators, states, strict=True):
                generator.graphsafe_set_state(state)  # the old one still takes itself for captured
            raise


class Running:
    """Loss and accuracy of an epoch so far, kept on the device.

    Attributes:
        sums: of the losses of all images, of right answers, and of batches before the first whose loss was not finite.
    """

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(3, device=device)
        self._loss, self.right, self._finite = self.sums.unbind()

    def reset(self) -> None:
        """Begin another epoch."""
        self.sums.zero_()

    def update(self, loss: Tensor, predictions: Tensor, labels: Tensor, total: int) -> None:
        """Add a batch of `total` images with mean loss `loss`, of which some are this process's."""
        self._loss += loss * total
        self.right += (predictions == labels).sum()
        self._finite += torch.isfinite(self._loss)  # a sum that once is infinite or not a number stays so

    def read(self, images: int, batches: int, predicted: int) -> tuple[float, float, int | None]:
        """Mean loss, accuracy of the images that were predicted here, the first batch whose loss was not finite.

        Waits for the device.
        """
        loss, right, finite = self.sums.tolist()
        return loss / images, right / predicted, int(finite) if finite < batches else None
