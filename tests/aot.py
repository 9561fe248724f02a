"""Compile every engine's kernels ahead of time, for chips this machine does not have, and report what they use.

Run as a program: `python tests/aot.py [--engine contrastive] [--chip sm90] [--name bf16] [--representative]`. One JSON
line a kernel: registers a thread, spilled bytes, shared memory, and which matrix instructions the code contains. It
must run in a process of its own: kernels imported under TRITON_INTERPRET=1 cannot be compiled.

An engine takes part by having `aot_cases(family)`, which yields (name, jit function, signature, constexprs, attrs,
num_warps, num_stages) from the same tables as its launcher.
"""

import argparse
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

CHIPS = {
    "sm80": ("cuda", 80, 32),
    "sm89": ("cuda", 89, 32),
    "sm90": ("cuda", 90, 32),
    "sm100": ("cuda", 100, 32),
    "sm120": ("cuda", 120, 32),
    "cdna": ("hip", "gfx942", 64),
}
FAMILIES = {"sm120": "sm89"}  # chips that take another family's settings
SHARED_LIMIT = {"sm80": 163, "sm89": 99, "sm90": 227, "sm100": 227, "sm120": 99, "cdna": 64}  # KiB a program
MATRIX_INSTRUCTIONS = ("mma.sync", "wgmma.mma_async", "tcgen05.mma", "v_mfma")


def engines() -> list[str]:
    package = importlib.import_module("fer_fast.kernels.engines")
    return [name for _, name, _ in pkgutil.iter_modules(package.__path__)]


def cases(engine: str, family: str) -> Iterator[tuple]:
    module = importlib.import_module(f"fer_fast.kernels.engines.{engine}")
    found = getattr(module, "aot_cases", None)
    if found is not None:
        yield from found(family) if inspect.signature(found).parameters else found()


def compile_one(engine: str, chip: str, name: str) -> dict:
    """Compile one case of one engine and read what the code takes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    family = FAMILIES.get(chip, chip)
    _, kernel, signature, constexprs, attrs, warps, stages = next(c for c in cases(engine, family) if c[0] == name)
    report = {"engine": engine, "chip": chip, "name": name}
    try:
        source = ASTSource(kernel, signature, constexprs, attrs)
        options = {"num_warps": warps, "num_stages": stages}
        compiled = triton.compile(source, target=GPUTarget(*CHIPS[chip]), options=options)
    except Exception as error:
        return report | {"error": f"{type(error).__name__}: {str(error)[-400:]}"}
    text = compiled.asm.get("ptx") or compiled.asm["amdgcn"]
    report["shared_kib"] = round(compiled.metadata.shared / 1024, 1)
    report["matrix"] = [instruction for instruction in MATRIX_INSTRUCTIONS if instruction in text]
    return report | (resources(compiled.asm["cubin"]) if "cubin" in compiled.asm else resources_of_amd(text))


def resources(cubin: bytes) -> dict:
    """Registers a thread and bytes of stack (spills) from the cuobjdump inside the Triton package."""
    import tempfile

    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {
        "registers": max(int(value) for value in re.findall(r"REG:(\d+)", text)),
        "spilled": max(int(value) for value in re.findall(r"STACK:(\d+)", text)),
    }


def resources_of_amd(text: str) -> dict:
    return {
        "registers": int(re.search(r"\.vgpr_count:\s*(\d+)", text)[1]),
        "spilled": int(re.search(r"\.vgpr_spill_count:\s*(\d+)", text)[1]),
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", action="append")
    parser.add_argument("--chip", action="append", choices=CHIPS)
    parser.add_argument("--name", default="", help="only cases whose name contains this")
    parser.add_argument("--representative", action="store_true", help="only cases marked with a trailing *")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    os.environ.setdefault("TRITON_CACHE_DIR", str(Path.home() / ".triton" / "aot"))
    jobs = [
        (engine, chip, case[0])
        for engine in args.engine or engines()
        for chip in args.chip or CHIPS
        for case in cases(engine, FAMILIES.get(chip, chip))
        if args.name in case[0] and (case[0].endswith("*") or not args.representative)
    ]
    with ProcessPoolExecutor(args.jobs) as pool:
        for report in pool.map(compile_one, *zip(*jobs, strict=True)) if jobs else ():
            print(json.dumps(report), flush=True)
    return 0


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise SystemExit("unset TRITON_INTERPRET: kernels imported for the interpreter cannot be compiled")
    sys.exit(main())
