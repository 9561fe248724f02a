"""What the engine launches, to compile ahead of time: all terms, at the widths of published embeddings."""

from collections.abc import Iterator
from itertools import product

import torch

from ..host.aot import TYPES, launch_case
from .launch import ad_corre

_SHAPES = [(7, 128), (7, 256), (7, 512), (4, 1024)]
_CLASSES = 16


def aot_cases(family: str) -> Iterator[tuple]:
    """Every kernel of a training step, on tensors without memory: threads of a computation would hang a fork."""
    for (k, d), (dtype, of) in product(_SHAPES, TYPES.items()):
        e, y, launches = torch.empty((k, 4096, d), dtype=dtype, device="meta"), torch.empty(4096, dtype=torch.int64), []
        w = torch.empty(_CLASSES)
        ad_corre(e, y, w, _CLASSES, 1.0, 1.0, 1.0, True, True, y, run=launches.append, family=family)
        for launch in launches:
            name = f"{launch.kernel.__name__}-{of}-{k}-{d}{'*' if d == 256 and of != 'fp16' else ''}"
            constants = dict(launch.constants)
            if "TENSOR_CORES" in constants:
                constants["TENSOR_CORES"] = family != "cdna"
            yield launch_case(name, launch._replace(constants=constants))
