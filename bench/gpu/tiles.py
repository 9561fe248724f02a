"""The best tile settings by time: each of a small grid around the present one, checked before it is timed.

The grid: every block and the number of elements or parts halved and doubled, 4 and 8 warps, one stage more and one
less, one field at a time; columns of both products where they are one number, and warps with stages, together; products
of full float32 by every way Triton has. A setting that does not compile, does not fit or is less exact than it may be
is a row too.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import product
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from ..check import Truth, first_line, truth
from ..measure import in_turns
from ..problems import Inputs, Problem, Shape
from .capture import CAPTURED
from .engines import OURS, Watched, in_place_of, tables
from .shapes import DRAWS, SMALL, name, problem, shrunk
from .step import Asked, Case, Result, main

SECONDS = 0.1  # of timing, each setting
LEAST_BLOCK = 16
FULL_FLOAT32 = ("ieee", "tf32x3", "bf16x6")
SEARCHED = (
    ("ensc", Shape(n=8192, d=256, bank=2**18)),
    ("center", Shape(n=262144, d=512)),
    ("supcon", Shape(n=16384, d=256)),
    ("ad-corre", Shape(n=32768, d=256, k=7)),
    ("marginal", Shape(n=16384, d=256)),
    ("variant", Shape(n=262144, d=512)),
    ("lmcl", Shape(n=65536, d=512)),
    ("ensc", Shape(n=8192, d=128, bank=2**18)),
    ("supcon", Shape(n=16384, d=128)),
    ("marginal", Shape(n=16384, d=128)),
    ("supcon", Shape(n=16384, d=512)),
    ("center", Shape(n=262144, d=2048)),
    ("ad-corre", Shape(n=32768, d=512, k=7)),
)


class Setting(NamedTuple):
    """One entry of a table of tile settings and what to put in its place."""

    table: str
    key: tuple | str
    tile: Any

    def __str__(self) -> str:
        return f"{self.table}[{key_text(self.key)}] = {tuple(self.tile)}"


def key_text(key: tuple | str) -> str:
    """A key of a table as its row shows it."""
    return key if isinstance(key, str) else ", ".join(map(str, key))


@dataclass
class Tried(Result):
    """One setting, and the present one beside it: median seconds of a whole step, none where its answer is wrong; as a
    CUDA graph, for the host would hide what is short."""

    loss: str
    dtype: str
    shape: dict[str, int]
    table: str
    key: str
    setting: dict[str, int | str | None]
    present: dict[str, int | str | None]
    seconds: float | None = None
    present_seconds: float | None = None


def problems(rehearse: bool) -> list[Problem]:
    """What is searched for, bfloat16 first."""
    if rehearse:
        return [problem("marginal", SMALL, "float16")]
    return [problem(loss, shape, dtype) for dtype in ("bfloat16", "float32") for loss, shape in SEARCHED]


def cases(asked: Asked) -> Iterator[Case]:
    for given in problems(asked.rehearse):
        for setting in settings(given, asked.device)[: 2 if asked.rehearse else None]:
            yield f"{name(given)}: {setting}", partial(measure, given, setting, asked)


def settings(given: Problem, device: torch.device) -> list[Setting]:
    """The grid of every entry that the problem's launches take; nothing is launched to find them."""
    taken = []
    for label, table in tables().items():
        watched = Watched(table)
        with in_place_of(table, watched), _no_launches():
            OURS.bind(given, shrunk(given).inputs(device))()
        taken += [Setting(label, key, tile) for key in watched.taken for tile in around(table[key])]
    return taken


def around(tile: Any) -> list[Any]:
    """The settings next to a setting, without itself."""
    choices = {}
    for field, value in tile._asdict().items():
        if field.endswith("warps"):
            choices[field] = (4, 8)
        elif field == "num_stages":
            choices[field] = tuple(range(max(1, value - 1), value + 2))
        elif field.startswith("block") or field in ("elements", "parts"):
            choices[field] = (value // 2, value * 2) if value >= 2 * LEAST_BLOCK else (value * 2,) if value else ()
        elif field == "precision" and value in FULL_FLOAT32:
            choices[field] = FULL_FLOAT32
    found = [tile._replace(**{field: value}) for field, values in choices.items() for value in values]
    if choices.get("block_k") and tile.block_k == tile.block_d:  # whole rows, or chunks of as many columns
        found += [tile._replace(block_d=value, block_k=value) for value in choices["block_d"]]
    both = [field for field in choices if field.endswith("warps") or field == "num_stages"]
    found += [tile._replace(**dict(zip(both, chosen, strict=True))) for chosen in product(*(choices[f] for f in both))]
    return [other for other in dict.fromkeys(found) if other != tile]


@contextmanager
def in_place(setting: Setting) -> Iterator[None]:
    """Launches take this setting."""
    table = tables()[setting.table]
    with in_place_of(table, table | {setting.key: setting.tile}):
        yield


def _no_launches() -> AbstractContextManager:
    """Host code runs, kernels do not. The interpreter has no such place, and is let run."""
    from triton.runtime.jit import JITFunction

    return patch.object(JITFunction, "run", lambda *_, **__: None)


def measure(given: Problem, setting: Setting, asked: Asked) -> Iterator[Tried]:
    """Check and time one setting."""
    inputs, right, present = _present(given, asked)
    row = Tried(
        loss=given.loss,
        dtype=given.dtype,
        shape=asdict(given.shape),
        table=setting.table,
        key=key_text(setting.key),
        setting=setting.tile._asdict(),
        present=tables()[setting.table][setting.key]._asdict(),
        present_seconds=present,
    )
    with in_place(setting):
        try:
            got = OURS.bind(given, inputs.to())()
        except Exception as error:  # whatever the compiler or the driver stumbles over is the finding
            row.status, row.reason = "refused", f"{type(error).__name__}: {first_line(error)}"
        else:
            row.reason = right.compare(got, OURS.slack).reason
            row.status = "wrong" if row.reason else "measured"
        if row.status == "measured":
            row.seconds = _seconds(given, inputs, asked)
    yield row


@lru_cache(maxsize=1)  # of large tensors
def _present(given: Problem, asked: Asked) -> tuple[Inputs, Truth, float | None]:
    """Inputs of a problem, what is right, and the present setting's seconds if its answer is."""
    inputs = given.inputs(asked.device)
    right = truth(given, inputs, DRAWS)
    wrong = right.judge(OURS, given, inputs.to()).reason
    return inputs, right, None if wrong else _seconds(given, inputs, asked)


def _seconds(given: Problem, inputs: Inputs, asked: Asked) -> float:
    seconds = 0.0 if asked.rehearse else SECONDS
    return in_turns([[CAPTURED.bind(given, inputs.to())]], asked.device, seconds)[0].q50


if __name__ == "__main__":
    main(cases)
