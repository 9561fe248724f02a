"""What the engine launches, to compile ahead of time: all terms, at the widths of published embeddings, and ED with
weights of rows and losses of each."""

from collections.abc import Iterator
from itertools import product

import torch

from ..host.aot import TYPES, launch_case
from .launch import ad_corre

_SHAPES = [(7, 128), (7, 256), (7, 512), (4, 1024)]
_CLASSES = 16


def aot_cases(family: str) -> Iterator[tuple]:
    """Every kernel of a training step, on tensors without memory: threads of a computation would hang a fork."""
    for (k, d), (dtype, of), optional in product(_SHAPES, TYPES.items(), (False, True)):
        e, y, launches = torch.empty((k, 4096, d), dtype=dtype, device="meta"), torch.empty(4096, dtype=torch.int64), []
        terms = (0.0, 0.0, 1.0) if optional else (1.0, 1.0, 1.0)
        of_rows = (torch.empty(4096, device="meta"), "none") if optional else (None, "mean")
        tables = torch.empty(_CLASSES), _CLASSES
        ad_corre(e, y, *tables, *terms, *of_rows, True, y, run=launches.append, family=family)
        for launch in launches:
            usual = d == 256 and of != "fp16" and not optional
            name = f"{launch.kernel.__name__}-{of}-{k}-{d}{'-optional' * optional}{'*' * usual}"
            constants = dict(launch.constants)
            if "TENSOR_CORES" in constants:
                constants["TENSOR_CORES"] = family != "cdna"
            yield launch_case(name, launch._replace(constants=constants))
