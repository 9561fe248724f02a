"""Processes that torchrun started to train one run: who they are, what they agree on, and how they end."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fer_fast.errors import InputError, printable

if TYPE_CHECKING:  # `fer-fast --help` imports this module and must not wait for torch
    from torch import Tensor

T = TypeVar("T")
GRACE = 2.0  # seconds in which torchrun, which looks every tenth of one, tells the others that a process ended
_INTERRUPTED = 20.0  # seconds that the first process has to end by itself; torchrun kills after 30
_LOST = ("gloo", "NCCL", "process was lost")  # in what torch and the losses say where a process is gone
_SHARED = (InputError, OSError, ModuleNotFoundError, SystemExit)  # what ends a command with a line, or none
_SAID = "fer-fast: said why"

_store: Any = None  # torch's, which outlives the process group: through it one process speaks for all


@dataclass(frozen=True)
class Processes:
    """The processes of a run; one alone does all without a word to anybody.

    Attributes:
        rank: of this one.
        count: of all.
        local: rank among those of its machine, which is its GPU's number.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    @property
    def program(self) -> str:
        """How the command is called that started them."""
        if self.count == 1:
            return "fer-fast"
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
        machines = f"--nnodes {self.count // here} " if here < self.count else ""
        return f"torchrun {machines}--nproc_per_node {here} -m fer_fast"

    def share(self, batch: "Tensor") -> "Tensor":
        """The part of a batch (n, ...) that this process takes: n / count in order, the first ones one more."""
        return batch.tensor_split(self.count)[self.rank]

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, in all; the others wait. An error of its input is raised in all."""
        if self.count == 1:
            return work()
        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = work()
            except _SHARED as error:
                told[1] = error
        _distributed().broadcast_object_list(told, src=0)
        _raise(told[1])
        return told[0]

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Work of every process by itself. An error of one's input, the lowest rank's, is raised in all."""
        mine = None
        try:
            yield
        except _SHARED as error:
            if self.count == 1:
                raise
            mine = error
        if self.count > 1:
            _raise(next(filter(None, self.told(mine)), None))

    def told(self, mine: T) -> list[T]:
        """What each process tells, by rank."""
        if self.count == 1:
            return [mine]
        everyone: list[Any] = [None] * self.count
        _distributed().all_gather_object(everyone, mine)
        return everyone

    def add(self, tensor: "Tensor") -> None:
        """Put the sum over the processes in place of a tensor."""
        if self.count > 1:
            _distributed().all_reduce(tensor)

    def average(self, tensors: Sequence["Tensor"]) -> None:
        """Put the mean over the processes in place of each tensor, in one go."""
        import torch

        if self.count > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            self.add(flat)
            means = (flat / self.count).split([tensor.numel() for tensor in tensors])
            for tensor, mean in zip(tensors, means, strict=True):
                tensor.copy_(mean.view_as(tensor))

    @contextmanager
    def loss_named(self) -> Iterator[None]:
        """One line where another process was lost, by whoever hears of it first: torchrun's signal, or this error.

        Raises:
            ConnectionError: in place of torch's error.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count == 1:
                raise
            time.sleep(GRACE)  # in which a signal says what happened, see `_listen`
            if any(word in str(error) for word in _LOST):
                reason = str(error).strip().splitlines()[0]
                raise ConnectionError(f"process {self.rank} of {self.count} lost another one: {reason}") from error
            raise


ALONE = Processes()


def started_by_torchrun() -> bool:
    """Whether this is one of several processes that torchrun, or what sets the same variables, started."""
    told = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in told) and os.environ["WORLD_SIZE"] != "1"


def speaks() -> bool:
    """Whether this process is the one that says why all end: the first to ask."""
    if not started_by_torchrun():
        return True
    if _store is None:  # so early that all say the same
        return os.environ["RANK"] == "0"
    with suppress(RuntimeError):
        return _store.add(_SAID, 1) == 1
    return True


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun started, as a group until the block ends; `ALONE` where it did not.

    All but the first are silent inside. A group that is there already is used and left.

    Raises:
        InputError: the processes do not find each other.
    """
    if not started_by_torchrun():
        yield ALONE
        return
    here = Processes(*(int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    if _distributed().is_initialized():
        yield here
        return
    with _hearing_signals(here), open(os.devnull, "w") as nowhere, _silent_into(nowhere, here):
        _join(here)
        try:
            yield here
        except BaseException as error:
            if getattr(error, "of_all", False):
                _distributed().destroy_process_group()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, at the first end of what all come to
            raise  # else the others are in the middle of something, which leaving would wait for
        _distributed().destroy_process_group()


def _join(here: Processes) -> None:
    global _store
    import torch

    distributed = _distributed()
    both = torch.cuda.is_available()  # objects and scores go through the host, gradients from GPU to GPU
    try:
        _store, _, _ = next(distributed.rendezvous("env://"))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if both else "gloo", store=_store, rank=here.rank, world_size=here.count
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the processes of torchrun do not find each other: {error}") from None


@contextmanager
def _silent_into(nowhere: Any, here: Processes) -> Iterator[None]:
    if here.first:
        yield
        return
    with redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _raise(error: BaseException | None) -> None:
    if error is not None:
        error.of_all = True
        raise error


@contextmanager
def _hearing_signals(here: Processes) -> Iterator[None]:
    """Have a thread act on signals: the main one may be waiting for a process that is gone."""
    if threading.current_thread() is not threading.main_thread():  # whose alone they are
        yield
        return
    heard, told = socket.socketpair()
    told.setblocking(False)
    threading.Thread(target=_listen, args=(heard, here), name="signals", daemon=True).start()
    before = signal.signal(signal.SIGTERM, lambda *_: None), signal.set_wakeup_fd(told.fileno())
    try:
        yield
    finally:
        signal.set_wakeup_fd(before[1])
        told.close()
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, before[0])


def _listen(heard: socket.socket, here: Processes) -> None:
    with heard:
        while numbers := heard.recv(64):
            if signal.SIGTERM in numbers:
                _end("error: torchrun ended all processes, as one of them or it was ended; --resume continues", 143)
            if signal.SIGINT in numbers:
                if not here.first:
                    os._exit(130)
                heard.settimeout(_INTERRUPTED)  # Python tells this one, too, and it has files to finish
                with suppress(TimeoutError):
                    if not heard.recv(64):
                        return
                _end("interrupted", 130)


def _end(line: str, status: int) -> None:
    if speaks():
        print(f"fer-fast: {printable(line)}", file=sys.__stderr__, flush=True)
    os._exit(status)


def _distributed() -> Any:
    import torch.distributed

    return torch.distributed
