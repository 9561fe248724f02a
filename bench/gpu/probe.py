"""Versions and device: the first a run asks, for it says which file the rows belong to."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from .. import rows
from ..contenders import installed
from ..peers import PEERS
from .step import Asked, Case, Result, main


@dataclass
class Found(Result):
    """The machine. `peers` are the packages measured beside this library, with their versions, where installed."""

    environment: dict[str, Any]
    devices: int
    capability: str
    memory_bytes: int
    processors: int
    cache_bytes: int
    cuda: str | None
    peers: dict[str, str | None]


def cases(asked: Asked) -> Iterator[Case]:
    yield "machine", partial(look, asked.device)


def look(device: torch.device) -> Iterator[Found]:
    """What PyTorch says of the device."""
    peers = {peer.package: installed(peer.package) for peer in PEERS}
    if device.type != "cuda":
        yield Found(rows.environment(device), 0, "", 0, 0, 0, None, peers)
        return
    chip = torch.cuda.get_device_properties(device)
    yield Found(
        environment=rows.environment(device),
        devices=torch.cuda.device_count(),
        capability=f"{chip.major}.{chip.minor}",
        memory_bytes=chip.total_memory,
        processors=chip.multi_processor_count,
        cache_bytes=chip.L2_cache_size,
        cuda=torch.version.cuda,
        peers=peers,
    )


if __name__ == "__main__":
    main(cases)
