"""What a kernel's disassembly and PTX show: its loops, the instructions and spills in them, how it uses wgmma."""

import re
from collections import Counter
from typing import NamedTuple

LONGEST_WAIT = 12  # instructions


class Instruction(NamedTuple):
    """An instruction by its address: where it may branch, and whether the next one may follow."""

    address: int
    opcode: str
    target: int | None
    falls_through: bool


class HotLoop(NamedTuple):
    """Opcodes of an iteration of one warp; all of a kernel without a loop.

    Not `whole` is one that holds loops of unknown length, counted once, or that another loop repeats.
    """

    counts: Counter[str]
    whole: bool


_LINE = re.compile(r"^\s*/\*([0-9a-f]+)\*/\s+(@!?U?P\w+)?\s*([A-Z]\w*(?:\.\w+)*)(.*?);", re.MULTILINE)


def instructions(sass: str) -> list[Instruction]:
    """Those of the one function, for Triton inlines the others, that `cuobjdump -sass` printed."""
    [text] = sass.split("Function :")[1:]
    return [_instruction(*match.groups()) for match in _LINE.finditer(text)]


def _instruction(address: str, guard: str | None, opcode: str, operands: str) -> Instruction:
    """A call may return, or be a far jump. BRA.DIV, to code for warps that have come apart, is never taken."""
    kind, target = _kind(opcode), re.search(r"\b0x([0-9a-f]+)\s*$", operands)
    branches = kind in ("BRA", "CALL") and opcode != "BRA.DIV"
    stays = kind in ("EXIT", "RET") or (kind == "BRA" and branches and "," not in operands)
    taken = int(target[1], 16) if branches and target else None
    return Instruction(int(address, 16), opcode, taken, falls_through=bool(guard) or not stays)


def _kind(opcode: str) -> str:
    return opcode.split(".")[0]


def loops(code: list[Instruction]) -> dict[int, set[int]]:
    """Addresses of each natural loop's instructions, by its first: what reaches a branch back without leaving.

    Left out are those that only wait at a barrier.
    """
    following = {}
    for one, after in zip(code, [*code[1:], None], strict=True):
        next_address = after.address if after and one.falls_through else None
        following[one.address] = [address for address in (next_address, one.target) if address is not None]
    preceding = {address: [] for address in following}
    for address, nexts in following.items():
        for each in nexts:
            preceding[each].append(address)
    found: dict[int, set[int]] = {}
    for latch, header in _branches_back(code[0].address, following):
        body, waiting = found.setdefault(header, {header}), [latch]
        while waiting:
            address = waiting.pop()
            if address not in body:
                body.add(address)
                waiting += preceding[address]
    barriers = {one.address for one in code if one.opcode.startswith("SYNCS.PHASECHK")}
    return {header: body for header, body in found.items() if len(body) > LONGEST_WAIT or not body & barriers}


def _branches_back(entry: int, following: dict[int, list[int]]) -> list[tuple[int, int]]:
    """Steps of a walk through the code, depth first, to what lies on its path already."""
    steps, seen, path = [], {entry}, {entry}
    stack = [(entry, iter(following[entry]))]
    while stack:
        address, nexts = stack[-1]
        step = next(nexts, None)
        if step is None:
            path.discard(address)
            stack.pop()
        elif step in path:
            steps.append((address, step))
        elif step not in seen:
            seen.add(step)
            path.add(step)
            stack.append((step, iter(following[step])))
    return steps


def spills_in_loops(code: list[Instruction]) -> int:
    """Loads and stores of spilled registers that a loop repeats."""
    inside = set().union(*loops(code).values())
    return sum(one.opcode.startswith(("LDL", "STL")) for one in code if one.address in inside)


def hot_loop(code: list[Instruction], chunks: int = 0) -> HotLoop:
    """The smallest loop with the most matrix instructions; where there are none, the longest of the innermost.

    `chunks` are the iterations of loops inside it, 0 if unknown.
    """
    opcodes, every = {one.address: one.opcode for one in code}, loops(code)
    if not every:
        return HotLoop(Counter(opcodes.values()), whole=True)
    counts = {header: Counter(opcodes[address] for address in body) for header, body in every.items()}

    def rank(header: int) -> tuple[int, bool, int]:
        work = sum(count for opcode, count in counts[header].items() if _kind(opcode).endswith("MMA"))
        size = len(every[header])
        innermost = not any(body < every[header] for body in every.values())
        return (work, False, -size) if work else (0, innermost, size)

    hot = max(every, key=rank)
    total, inside = counts[hot].copy(), [header for header, body in every.items() if body < every[hot]]
    for header in inside:
        for opcode, count in counts[header].items():
            total[opcode] += max(0, chunks - 1) * count
    repeated = any(every[hot] < body for body in every.values())
    return HotLoop(total, whole=not repeated and (not inside or chunks > 0))


def multiply_adds(counts: Counter[str], tf32: int = 1) -> float:
    """Of a warp's matrix instructions, those of TF32 weighted; the four warps of a group share a wgmma."""
    total = 0
    for opcode, count in counts.items():
        if shape := re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", opcode):
            m, n, k = (int(side) for side in shape.groups())
            size = m * n * k / 4
        elif shape := re.match(r"HMMA\.168(\d+)", opcode):
            size = 16 * 8 * int(shape[1])
        else:
            continue
        total += count * size * (tf32 if "TF32" in opcode else 1)
    return total


def waits_added(code: list[Instruction], ptx: str) -> bool:
    """Whether ptxas serialised wgmma, waiting more often for its products than the PTX asks it to.

    Its notes C7510 and on say so as well, but not of a kernel that lay in Triton's cache. Code that is there twice
    has twice of both.
    """
    opcodes = [one.opcode for one in code]
    waits, products = (sum(opcode.startswith(kind) for opcode in opcodes) for kind in ("WARPGROUP.DEPBAR", "HGMMA."))
    return waits * ptx.count("wgmma.mma_async") > ptx.count("wgmma.wait_group") * products


def narrow_product(ptx: str, ttgir: str) -> int:
    """The narrowest side below 64 of wgmma in a kernel of several products, else 0.

    Reported to corrupt silently: issue 1905 of pytorch/helion, 11366 of triton-lang/triton.
    """
    narrowest = min((int(n) for n in re.findall(r"wgmma\.mma_async\S*\.m64n(\d+)k", ptx)), default=64)
    return narrowest if narrowest < 64 and products(ttgir) > 1 else 0


_PRODUCT = re.compile(r"(%\w+)(?::\d+)? = ttng\.warp_group_dot(_wait)? ([^{:]*).*?(?:loc\((.*)\))?$", re.MULTILINE)


def products(ttgir: str) -> int:
    """Products by wgmma; parts of one, split by the compiler along the columns it sums, share its line and its sum."""
    count, line_of = 0, {}
    for result, waits, operands, line in _PRODUCT.findall(ttgir):
        values = [value.strip() for value in operands.split(",")]
        if waits:
            lines = [line_of.get(value) for value in values]
            line_of |= {result: lines[0]} | {f"{result}#{place}": line for place, line in enumerate(lines)}
        else:
            count += line_of.get(values[2]) != line
            line_of[result] = line
    return count
