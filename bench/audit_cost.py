"""Clocks of a multiprocessor for an iteration of a kernel's hot loop, predicted from its instructions.

Each is a lower bound: it never waits, and one unit's work hides behind another's.

- Matrix: multiply-adds of the instructions' shapes, at the dense rate of the data sheet.
- Issue: four warp instructions a clock, or what its busiest unit takes, by the table "Throughput of Native Arithmetic
  Instructions" of the CUDA programming guide. Compare and select, for one, have 64 lanes: two clocks of a quarter.
- Floor: of pairs, the products without those a split of the columns repeats; where rows are streamed, their bytes.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from .audit_sass import multiply_adds


class Rates(NamedTuple):
    """What a multiprocessor does in a clock; bytes are its share of the memory's."""

    multiply_adds: int  # of fp16 and bf16, twice those of TF32
    bytes: float
    float32: int
    float64: int


# Data sheets. A100 SXM 80 GB: 108 multiprocessors, 2039 GB/s, 312 TFLOP/s in bf16, which is 1.41 GHz. H100 SXM: 132,
# 3350 GB/s, 989.4 TFLOP/s, which is 1.83 GHz.
RATES = {
    "sm80": Rates(1024, 2039 / (108 * 1.41), 64, 32),
    "sm90": Rates(2048, 3350 / (132 * 1.83), 128, 64),
}
ISSUED = 4  # warp instructions a clock
FLOAT32, FLOAT64 = ("FADD", "FMUL", "FFMA", "IMAD"), ("DADD", "DMUL", "DFMA", "DSETP")
UNITS = {  # by lanes
    64: ("ISETP", "FSETP", "HSETP2", "PLOP3", "P2R", "SEL", "FSEL", "FMNMX", "VIMNMX", "IADD3", "VIADD", "LEA", "LOP3",
         "SHF", "SGXT", "PRMT", "F2FP"),
    32: ("SHFL", "LDS", "STS", "LDSM", "STSM"),
    16: ("MUFU", "F2F", "F2I", "I2F"),
}  # fmt: skip
LINEAR = ("rows-", "row_kernel-", "sums-")  # kernels whose cost is the bytes of their rows
STREAMED = ("x_ptr", "dx_ptr", "e", "de", "x", "dx")
SIZES = {"*fp32": 4, "*fp16": 2, "*bf16": 2}


def chunks(constexprs: Mapping) -> int:
    """Iterations of a product's sum over its columns, where they are known."""
    d, block = constexprs.get("d"), constexprs.get("BLOCK_K")
    return -(-d // block) if d and block else 0


def rows(case: str, constexprs: Mapping) -> int:
    """Rows of an iteration, or keys; 0 where no setting says. Ad-Corre's second sweep takes all k of a row's."""
    found = next((constexprs[name] for name in ("BLOCK_N", "BLOCK", "BLOCK_M", "R") if constexprs.get(name)), 0)
    return found * int(case.split("-")[2]) if "EMBEDDINGS" in constexprs else found


def matrix_clocks(counts: Counter[str], rates: Rates, warps: int) -> float:
    return warps * multiply_adds(counts, tf32=2) / rates.multiply_adds


def issue_clocks(counts: Counter[str], rates: Rates, warps: int) -> float:
    kinds = Counter()
    for opcode, count in counts.items():
        kinds[opcode.split(".")[0]] += count
    units = [*UNITS.items(), (rates.float32, FLOAT32), (rates.float64, FLOAT64)]
    busiest = max(sum(kinds[kind] for kind in unit) * 32 / lanes for lanes, unit in units)
    return warps * max(kinds.total() / ISSUED, busiest)


def useful(counts: Counter[str], warps: int, constexprs: Mapping) -> float:
    """Share of the products that is not repeated: where columns are split, each part of G K has all of S before it."""
    d, block_d = constexprs.get("d", 0), constexprs.get("BLOCK_D", 0)
    both = warps * multiply_adds(counts) > constexprs["BLOCK_M"] * constexprs["BLOCK_N"] * d
    return 2 * block_d / (d + block_d) if both and 0 < block_d < d else 1.0


def streamed_bytes(signature: Mapping, constexprs: Mapping) -> int:
    """Of a row, 0 for a kernel that streams none."""
    width = constexprs.get("d") or constexprs.get("D") or constexprs.get("CHUNKS", 1) * constexprs.get("BLOCK_D", 0)
    types = dict(signature)
    for group in signature.values():
        types |= getattr(group, "_asdict", dict)()
    return width * sum(SIZES.get(types[name], 0) for name in STREAMED if isinstance(types.get(name), str))
