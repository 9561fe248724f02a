"""What kernels take of a chip, read from code compiled ahead of time: registers, spills, shared memory, matrix units,
and what their hot loops cost.

No chip is needed, but a process of its own is: kernels imported under TRITON_INTERPRET=1 cannot be compiled. Run as a
program, it takes one :class:`Selection` as JSON and prints one :class:`ResourceRow` a line.

An engine's `aot.py` has `aot_cases(family)`, which yields (name, jit function, signature, constexprs, attrs, options)
from the same tables as its launcher; a name that ends in * stands for its kernel in CI.
"""

import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from . import audit_cost, audit_limits, audit_sass


class Chip(NamedTuple):
    """A target of Triton's compiler, and what one of its multiprocessors holds."""

    target: tuple[str, int | str, int]  # the last is threads a warp
    matrix: str  # the instruction of its matrix unit
    threads: int
    registers: int  # of 32 bits
    shared: int  # KiB
    reserved: int  # KiB of it that each program pays to the driver
    family: str  # whose tile settings it takes
    may_spill: bool = False  # settings were not chosen for it: spills are shown and allowed


# CUDA programming guide, "Technical Specifications per Compute Capability". AMD: CDNA 3 instruction set guide; 4 SIMDs
# of 512 registers and 8 waves of 64 threads each, 64 KiB of local memory.
CHIPS = {
    "sm80": Chip(("cuda", 80, 32), "mma.sync", 2048, 64 << 10, 164, 1, "sm80"),
    "sm89": Chip(("cuda", 89, 32), "mma.sync", 1536, 64 << 10, 100, 1, "sm89", may_spill=True),
    "sm90": Chip(("cuda", 90, 32), "wgmma.mma_async", 2048, 64 << 10, 228, 1, "sm90"),
    "sm100": Chip(("cuda", 100, 32), "tcgen05.mma", 2048, 64 << 10, 228, 1, "sm100"),
    "sm120": Chip(("cuda", 120, 32), "mma.sync", 1536, 64 << 10, 100, 1, "sm89", may_spill=True),
    "cdna": Chip(("hip", "gfx942", 64), "v_mfma", 2048, 128 << 10, 64, 0, "cdna", may_spill=True),
}
CHECKED = ("sm80", "sm90", "sm100", "sm120", "cdna")  # one chip of each kind
LARGE_PRODUCTS = ("sweep-", "batch-", "similarity-")  # kernels whose products have to fill the chip's own matrix unit
SMALL_PRODUCTS = ("sums-",)  # 16 classes are fewer than wgmma's and tcgen05's 64 rows: any unit will do
EMPTY_REGISTERS = 4  # what Triton 3.6 left of some kernels for sm_100, without a word
HALF = ("fp16", "bf16")  # float32 is multiplied in full precision, which only AMD has matrix units for


@dataclass
class Selection:
    """What to compile; no engine named means every one."""

    engines: list[str] = field(default_factory=list)
    chips: list[str] = field(default_factory=lambda: list(CHECKED))
    name: str = ""  # part of a case's name
    every: bool = False  # else only the cases marked with *, and those with a limit
    jobs: int = 2


@dataclass
class ResourceRow:
    """One kernel on one chip: registers and spilled bytes a thread, shared bytes a program, and of its hot loop an
    iteration's instructions of a warp, its rows, and the clocks of :mod:`audit_cost` (0 where they are not known)."""

    engine: str
    case: str
    chip: str
    warps: int
    registers: int = 0
    spilled: int = 0
    shared: int = 0
    matrix: list[str] = field(default_factory=list)
    spills_in_loops: int = 0  # instructions
    narrow_product: int = 0
    serialised: bool = False
    instructions: int = 0
    whole: bool = True  # else there is more to an iteration than was counted
    rows: int = 0
    matrix_clocks: float = 0
    issue_clocks: float = 0
    floor_clocks: float = 0
    error: str = ""

    @property
    def a_row(self) -> float:
        """Instructions of all warps."""
        return self.instructions * self.warps / self.rows if self.rows else 0

    @property
    def bound(self) -> float:
        """Largest share of the floor's speed that the slower of matrix unit and issue leaves."""
        return self.floor_clocks and self.floor_clocks / max(self.floor_clocks, self.matrix_clocks, self.issue_clocks)

    @property
    def programs(self) -> int:
        """As many as a multiprocessor holds at a time.

        How many programs it may hold is never what binds: that takes programs of one warp, and none has fewer than 4.
        """
        chip = CHIPS[self.chip]
        lanes = chip.target[-1]
        # A warp lives in one quarter of the multiprocessor, which hands out registers eight a thread at a time.
        warps = 4 * (chip.registers // 4 // (lanes * 8 * -(-self.registers // 8)))
        programs = min(warps, chip.threads // lanes) // self.warps
        shared = self.shared + 1024 * chip.reserved
        if shared:
            programs = min(programs, 1024 * chip.shared // shared)
        return programs

    @property
    def faults(self) -> list[str]:
        """What breaks a limit, in words, but for what this Triton cannot help."""
        known = audit_limits.known().get((self.engine, self.case, self.chip), ())
        return [fault for fault in self.found if fault not in known]

    @property
    def found(self) -> list[str]:
        if self.error:
            return [self.error]
        chip, faults = CHIPS[self.chip], []
        if self.spills_in_loops and not chip.may_spill:
            faults.append(f"{self.spilled} bytes spilled, in a loop too")
        if self.shared > 1024 * (chip.shared - chip.reserved):
            faults.append(f"{self.shared / 1024:.1f} KiB of shared memory, {chip.shared - chip.reserved} allowed")
        if chip.target[0] == "cuda" and self.registers <= EMPTY_REGISTERS:
            faults.append("compiled to an empty kernel")
        half = any(name in self.case.split("-") for name in HALF)
        if half and self.case.startswith(LARGE_PRODUCTS) and chip.matrix not in self.matrix:
            faults.append(f"no {chip.matrix}")
        if half and self.case.startswith(SMALL_PRODUCTS) and not self.matrix:
            faults.append("no matrix instruction")
        if self.narrow_product:
            faults.append(f"wgmma of side {self.narrow_product} in a kernel of several products")
        if self.serialised:
            faults.append("wgmma serialised by ptxas")
        limit = audit_limits.limit(self.engine, self.case, self.chip)
        counted = {"tile": self.instructions, "row": self.a_row}
        if limit and counted[limit.per] > limit.most:
            faults.append(f"{counted[limit.per]:.0f} instructions a {limit.per}, {limit.most} allowed")
        return faults

    @property
    def over(self) -> bool:
        return bool(self.faults)


def compiled(selection: Selection) -> Iterator[ResourceRow]:
    """Each selected case on each selected chip, the chips of a case one after the other."""
    jobs = [
        (engine, chip, case[0])
        for engine in selection.engines or engines()
        for chip in selection.chips
        for case in _cases(engine, chip)
        if selection.name in case[0] and (selection.every or _checked(engine, chip, case[0]))
    ]
    jobs.sort(key=lambda job: (job[0], job[2]))
    with ProcessPoolExecutor(selection.jobs) as pool:
        yield from pool.map(_compile, *zip(*jobs, strict=True)) if jobs else ()


def engines() -> list[str]:
    """The kernels' folders, but for what they share."""
    package = importlib.import_module("fer_fast.kernels")
    return [name for _, name, _ in pkgutil.iter_modules(package.__path__) if name not in ("common", "host")]


def engine_module(engine: str, name: str) -> ModuleType:
    return importlib.import_module(f"fer_fast.kernels.{engine}.{name}")


def _cases(engine: str, chip: str) -> Iterator[tuple]:
    yield from engine_module(engine, "aot").aot_cases(CHIPS[chip].family)


def _checked(engine: str, chip: str, name: str) -> bool:
    return name.endswith("*") or audit_limits.limit(engine, name, chip) is not None


def _compile(engine: str, chip: str, name: str) -> ResourceRow:
    return measured(engine, chip, next(case for case in _cases(engine, chip) if case[0] == name))


def measured(engine: str, chip: str, case: tuple) -> ResourceRow:
    """One case of an engine's `aot_cases`, compiled for a chip."""
    import triton  # on Linux only
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    name, kernel, signature, constexprs, attrs, options = case
    row = ResourceRow(engine, name.removesuffix("*"), chip, options["num_warps"])
    try:
        source = ASTSource(kernel, signature, constexprs, attrs)
        code = triton.compile(source, target=GPUTarget(*CHIPS[chip].target), options=options)
    except Exception as error:  # whatever the compiler stumbles over is the finding
        row.error = f"{type(error).__name__}: {' '.join(str(error).split())[-200:]}"
        return row
    text = code.asm.get("ptx") or code.asm["amdgcn"]
    row.shared = code.metadata.shared
    row.matrix = [unit for unit in dict.fromkeys(chip.matrix for chip in CHIPS.values()) if unit in text]
    if "cubin" not in code.asm:
        row.registers, row.spilled = _of_amd(text)
        return row
    printed = _disassembled(code.asm["cubin"])
    row.registers, row.spilled = (max(int(v) for v in re.findall(rf"{of}:(\d+)", printed)) for of in ("REG", "STACK"))
    instructions = audit_sass.instructions(printed)
    row.spills_in_loops = audit_sass.spills_in_loops(instructions)
    row.narrow_product = audit_sass.narrow_product(text, code.asm["ttgir"])
    row.serialised = audit_sass.waits_added(instructions, text)
    _add_cost(row, audit_sass.hot_loop(instructions, audit_cost.chunks(constexprs)), signature, constexprs)
    return row


def _disassembled(cubin: bytes) -> str:
    """Registers, stack, which only spills use, and instructions, by the cuobjdump inside the Triton package."""
    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, "-res-usage", "-sass", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _add_cost(row: ResourceRow, loop: audit_sass.HotLoop, signature: dict, constexprs: dict) -> None:
    row.instructions, row.whole, row.rows = loop.counts.total(), loop.whole, audit_cost.rows(row.case, constexprs)
    rates = audit_cost.RATES.get(row.chip)
    if rates is None:
        return
    row.matrix_clocks = audit_cost.matrix_clocks(loop.counts, rates, row.warps)
    row.issue_clocks = audit_cost.issue_clocks(loop.counts, rates, row.warps)
    if loop.whole and row.case.startswith(LARGE_PRODUCTS):
        row.floor_clocks = row.matrix_clocks * audit_cost.useful(loop.counts, row.warps, constexprs)
    elif loop.whole and row.case.startswith(audit_cost.LINEAR):
        row.floor_clocks = row.rows * audit_cost.streamed_bytes(signature, constexprs) / rates.bytes


def _of_amd(text: str) -> tuple[int, int]:
    """Vector registers a thread, accumulators included, and the bytes of those spilled."""
    found = [int(re.search(rf"\.{name}:\s*(\d+)", text)[1]) for name in ("vgpr_count", "vgpr_spill_count")]
    return found[0], 4 * found[1]


if __name__ == "__main__":
    for row in compiled(Selection(**json.loads(sys.argv[1]))):
        print(json.dumps(asdict(row)), flush=True)
