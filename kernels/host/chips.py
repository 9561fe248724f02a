"""Chip families, and what a tile setting says of a launch: blocks, warps, stages, registers, precision.

Settings are in each engine's `settings.py`, by chip family, kind or bytes of an element, and width. Nothing tunes
itself at a user's first step. They were found by compiling ahead of time: the largest that spill nothing on sm_80,
sm_90 and sm_100, with the matrix unit in use; `python -m bench audit` shows what they take of a chip. Those that stand
beside a time were the fastest of their neighbours on that chip.
"""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import torch
import triton

FAMILIES = ("sm80", "sm89", "sm90", "sm100", "cdna")
KINDS = {"half": "tf32", "tf32": "tf32", "float32": "ieee"}  # of products, and the precision where nothing says more
WIDE = 2**30  # rows of any width, multiplied chunk by chunk
TRITON = tuple(int(part) for part in triton.__version__.split(".")[:2])
# Before 3.8 Triton refuses a float32 product over fewer than 16 rows.
LEAST_ROWS = 8 if TRITON >= (3, 8) else 16


@cache
def chip(device: torch.device) -> str:
    """The family whose tile settings fit: by matrix unit and shared memory. `cpu` is Triton's interpreter."""
    if device.type != "cuda":
        return "cpu"
    if torch.version.hip:
        return "cdna"
    major, minor = torch.cuda.get_device_capability(device)
    return {8: "sm80" if minor in (0, 7) else "sm89", 9: "sm90", 10: "sm100"}.get(major, "sm89")


def launch_options(num_warps: int, num_stages: int = 1, max_registers: int | None = None) -> dict[str, int]:
    """Keywords of a launch; the limit only where it is one, for AMD's compiler knows none. Products and sums are fused,
    as Triton does by itself up to 3.9, which warns that its default will change."""
    limit = {} if max_registers is None else {"maxnreg": max_registers}
    return {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True, **limit}


class Tile(NamedTuple):
    """Anchors by keys by output columns; products are summed over chunks of `block_k` columns.

    `max_registers` a thread where ptxas would choose fewer, to have more programs at a time, and spill. `precision`, as
    Triton names it, is that of products of float32 operands.
    """

    block_m: int
    block_n: int
    block_d: int
    block_k: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None
    precision: str = "tf32"

    @property
    def constexprs(self) -> dict[str, int | str]:
        blocks = {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_D": self.block_d, "BLOCK_K": self.block_k}
        return blocks | {"PRECISION": self.precision}

    @property
    def options(self) -> dict[str, int]:
        return launch_options(self.num_warps, self.num_stages, self.max_registers)


def pick_tile(table: Mapping[tuple[str, str, int], Tile], family: str, kind: str, d: int) -> Tile:
    """The setting of the narrowest width that holds rows of `d` columns."""
    return table[family, kind, min(width for name, of, width in table if (name, of) == (family, kind) and width >= d)]
