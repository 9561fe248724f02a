"""What made a run: the command, the code, the libraries, the machine, and digests of what it read and gave."""

import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fer_fast.data.dataset import FaceDataset
from fer_fast.train.hardware import Hardware

_LIBRARIES = {  # as it is called here: as it is installed
    **{name: name for name in ("fer-fast", "torch", "torchvision", "timm", "numpy", "triton")},
    "opencv": "opencv-python-headless",
}


def provenance(command: str | None, hardware: Hardware, stored: dict[str, Any] | None = None) -> dict[str, Any]:
    """What made a run, as JSON values.

    Args:
        command: as it was typed; None where the run was started from Python.
        hardware: the run's.
        stored: the state of the run that is resumed; it keeps what made its first part.

    Returns:
        ``date``, ``command``, ``commit``, ``versions`` and ``device`` of the sitting that began the run, and
        ``resumed``: the same of every later one.
    """
    here = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "commit": commit(),
        "versions": versions(),
        "device": describe_device(hardware),
    }
    if stored is None:
        return {**here, "resumed": []}
    began = {key: stored.get(key) for key in here}  # a run of an earlier version tells less
    return {**began, "resumed": [*stored.get("resumed", []), here]}


def last_sitting(made: dict[str, Any]) -> dict[str, Any]:
    """Of what `provenance` gave, the part on the sitting that ended the run and worked its numbers out."""
    return (made.get("resumed") or [made])[-1]


def versions() -> dict[str, str]:
    """Versions of what a result depends on, where it is installed."""
    found = {"python": platform.python_version()}
    for name, distribution in _LIBRARIES.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:
            continue
    return found | {"torch": torch.__version__}  # which CUDA it was built for is in no other version


def describe_device(hardware: Hardware) -> dict[str, Any]:
    """Where and how a run computes, whatever "auto" asked for.

    Returns:
        ``type``, ``name`` as its maker has it, ``precision``, ``count``, ``threads`` of the host, ``system``.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {
        "type": hardware.device.type,
        "name": chip(hardware.device),
        "precision": hardware.precision,
        "count": torch.distributed.get_world_size() if distributed else 1,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


@cache
def chip(device: torch.device) -> str:
    """The name that the maker gave the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return name.group(1).strip() if name else platform.processor() or platform.machine()


def commit(file: Path = Path(__file__)) -> str | None:
    """The git commit of the checkout that holds a file, with "-dirty" where it was changed since.

    None for an installed copy, also one that lies inside somebody's checkout.
    """

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(("git", "-C", file.parent, *words), capture_output=True, text=True, check=False)
        except OSError:  # no git
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not git("ls-files", "--error-unmatch", file.name):
        return None
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def membership(datasets: tuple[FaceDataset, ...]) -> dict[str, str]:
    """Split -> SHA-256 of the names of its images, whatever their size, order and labels; drawn images have none."""
    return {dataset.split: names_digest(dataset.names) for dataset in datasets if dataset.names}


def names_digest(names: Iterable[str]) -> str:
    """SHA-256 of names, whatever their order, and once where they stand twice."""
    return hashlib.sha256(json.dumps(sorted({*names})).encode()).hexdigest()


def weights_digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of tensors: names, dtypes, shapes and every bit."""
    state = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        state.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return state.hexdigest()
