"""A group of processes that run functions side by side, on gloo: started once, told what to run by name."""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from inspect import getfile
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch

SECONDS = 180  # that a process waits for the others before it gives up


class Group:
    """R processes and a default process group among them."""

    def __init__(self, size: int, folder: str):
        context, self.size = get_context("spawn"), size
        pairs = [context.Pipe() for _ in range(size)]
        self.pipes = [ours for ours, _ in pairs]
        self.processes = [
            context.Process(target=_serve, args=(theirs, rank, size, os.path.join(folder, "store")), daemon=True)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        for process in self.processes:
            process.start()

    def start(self, function: Callable, *args) -> None:
        """As :meth:`run`, without waiting for answers."""
        for pipe in self.pipes:
            pipe.send((getfile(function), function.__name__, args))

    def run(self, function: Callable, *args) -> list[Any]:
        """`function(*args)` on every process, by its file and name: the results in the order of ranks. What one of
        them raises is raised here, of the first."""
        self.start(function, *args)
        answers = [pipe.recv() if pipe.poll(SECONDS) else (False, "no answer") for pipe in self.pipes]
        faults = [f"rank {rank}: {answer}" for rank, (fine, answer) in enumerate(answers) if not fine]
        if faults:
            raise RuntimeError("\n".join(faults))
        return [answer for _, answer in answers]


@contextmanager
def group(size: int):
    """A :class:`Group` that ends with the block."""
    with TemporaryDirectory() as folder:
        made = Group(size, folder)
        try:
            yield made
        finally:
            for process in made.processes:
                process.terminate()
            for process in made.processes:
                process.join()


def _serve(pipe: Connection, rank: int, size: int, store: str) -> None:
    from datetime import timedelta

    import torch.distributed as dist

    torch.set_num_threads(1)
    if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton"):
        import triton_interpreter

        triton_interpreter.install()
    where = {"init_method": f"file://{store}", "rank": rank, "world_size": size}
    dist.init_process_group("gloo", timeout=timedelta(seconds=SECONDS), **where)
    while True:
        file, name, args = pipe.recv()
        try:
            pipe.send((True, getattr(_module(file), name)(*args)))
        except Exception:
            pipe.send((False, traceback.format_exc(limit=-6)))


@cache
def _module(file: str) -> ModuleType:
    """That of a file, which need not lie where Python looks for modules: one of tests does not."""
    path = Path(file)
    if str(path.parent) in sys.path:
        return import_module(path.stem)
    spec = spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
