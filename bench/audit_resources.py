"""What kernels take of a chip, read from code compiled ahead of time: registers, spills, shared memory, matrix units.

No chip is needed, but a process of its own is: kernels imported under TRITON_INTERPRET=1 cannot be compiled. Run as a
program, it takes one :class:`Selection` as JSON and prints one :class:`ResourceRow` a line.

An engine takes part by having `aot_cases(family)`, which yields (name, jit function, signature, constexprs, attrs,
options) from the same tables as its launcher; a name that ends in * stands for its kernel in CI.
"""

import importlib
import inspect
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
SMALL_PRODUCTS = ("tables-", "sums-")  # 16 classes are fewer than wgmma's and tcgen05's 64 rows: any unit will do
HALF = ("fp16", "bf16")  # float32 is multiplied in full precision, which only AMD has matrix units for


@dataclass
class Selection:
    """What to compile; no engine named means every one."""

    engines: list[str] = field(default_factory=list)
    chips: list[str] = field(default_factory=lambda: list(CHECKED))
    name: str = ""  # part of a case's name
    every: bool = False  # else only the cases marked with *
    jobs: int = 2


@dataclass
class ResourceRow:
    """One kernel on one chip: registers and spilled bytes a thread, shared bytes a program."""

    engine: str
    case: str
    chip: str
    warps: int
    registers: int = 0
    spilled: int = 0
    shared: int = 0
    matrix: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def occupancy(self) -> float:
        """Share of a multiprocessor's threads that are resident when it is given as many programs as it holds.

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
        return programs * self.warps * lanes / chip.threads

    @property
    def faults(self) -> list[str]:
        """What breaks a limit, in words."""
        if self.error:
            return [self.error]
        chip, faults = CHIPS[self.chip], []
        if self.spilled and not chip.may_spill:
            faults.append(f"{self.spilled} bytes spilled")
        if self.shared > 1024 * (chip.shared - chip.reserved):
            faults.append(f"{self.shared / 1024:.1f} KiB of shared memory, {chip.shared - chip.reserved} allowed")
        half = any(name in self.case.split("-") for name in HALF)
        if half and self.case.startswith(LARGE_PRODUCTS) and chip.matrix not in self.matrix:
            faults.append(f"no {chip.matrix}")
        if half and self.case.startswith(SMALL_PRODUCTS) and not self.matrix:
            faults.append("no matrix instruction")
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
        if selection.name in case[0] and (selection.every or case[0].endswith("*"))
    ]
    jobs.sort(key=lambda job: (job[0], job[2]))
    with ProcessPoolExecutor(selection.jobs) as pool:
        yield from pool.map(_compile, *zip(*jobs, strict=True)) if jobs else ()


def engines() -> list[str]:
    """The modules that may have cases."""
    package = importlib.import_module("fer_fast.kernels.engines")
    return [name for _, name, _ in pkgutil.iter_modules(package.__path__)]


def engine_module(engine: str) -> ModuleType:
    return importlib.import_module(f"fer_fast.kernels.engines.{engine}")


def _cases(engine: str, chip: str) -> Iterator[tuple]:
    found = getattr(engine_module(engine), "aot_cases", None)
    if found is not None:
        yield from found(CHIPS[chip].family) if inspect.signature(found).parameters else found()


def _compile(engine: str, chip: str, name: str) -> ResourceRow:
    import triton  # on Linux only
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    _, kernel, signature, constexprs, attrs, options = next(c for c in _cases(engine, chip) if c[0] == name)
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
    row.registers, row.spilled = _of_nvidia(code.asm["cubin"]) if "cubin" in code.asm else _of_amd(text)
    return row


def _of_nvidia(cubin: bytes) -> tuple[int, int]:
    """Registers a thread and bytes of stack, which only spills use, from the cuobjdump inside the Triton package."""
    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return tuple(max(int(value) for value in re.findall(rf"{name}:(\d+)", text)) for name in ("REG", "STACK"))


def _of_amd(text: str) -> tuple[int, int]:
    """Vector registers a thread, accumulators included, and the bytes of those spilled."""
    found = [int(re.search(rf"\.{name}:\s*(\d+)", text)[1]) for name in ("vgpr_count", "vgpr_spill_count")]
    return found[0], 4 * found[1]


if __name__ == "__main__":
    for row in compiled(Selection(**json.loads(sys.argv[1]))):
        print(json.dumps(asdict(row)), flush=True)
