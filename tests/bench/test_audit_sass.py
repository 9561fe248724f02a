"""Loops and what is in them, found in disassembly as cuobjdump prints it."""

from collections import Counter

import pytest
from fer_fast.bench import audit_cost, audit_sass

SM90 = audit_cost.RATES["sm90"]


def printed(text: str) -> str:
    """One instruction a line, `label:` before it where something branches to it, as cuobjdump shows them."""
    lines, labels, address = [], {}, 0
    for line in text.strip().splitlines():
        label, _, instruction = line.strip().rpartition(": ")
        if label:
            labels[label] = f"{address:#x}"
        lines.append((address, instruction))
        address += 16
    shown = ["\tcode for sm_90a\n\t\tFunction : kernel"]
    for address, instruction in lines:
        for label, target in labels.items():
            instruction = instruction.replace(f"->{label}", target)
        shown += [
            f"        /*{address:04x}*/  {instruction} ;   /* 0x0000000a00017a02 */",
            " " * 40 + "/* 0x000fe20000000f00 */",
        ]
    return "\n".join(shown)


NESTED = printed("""
    LDC R1, c[0x0][0x28]
    STL [R1], R2
    outer: LDG.E R3, desc[UR6][R4.64]
    @P1 BRA ->inner
    FADD R3, R3, R2
    inner: HMMA.16816.F32.BF16 R8, R4, R6, R8
    FFMA R9, R9, R9, R9
    @P0 BRA ->inner
    HMMA.16816.F32.BF16 R8, R4, R6, R8
    LDL R2, [R1]
    @!P0 BRA ->outer
    EXIT
    end: BRA ->end
""")


def test_loops_are_nested_and_what_cannot_be_reached_is_none():
    loops = audit_sass.loops(audit_sass.instructions(NESTED))
    assert {header: sorted(body) for header, body in loops.items()} == {
        0x20: list(range(0x20, 0xB0, 16)),
        0x50: [0x50, 0x60, 0x70],
    }


def test_only_spills_in_a_loop_are_counted_as_such():
    assert audit_sass.spills_in_loops(audit_sass.instructions(NESTED)) == 1


@pytest.mark.parametrize(("chunks", "products", "whole"), [(0, 2, False), (1, 2, True), (4, 5, True)])
def test_a_hot_loop_repeats_the_loops_inside_it(chunks, products, whole):
    hot = audit_sass.hot_loop(audit_sass.instructions(NESTED), chunks)
    assert hot.counts["HMMA.16816.F32.BF16"] == products
    assert hot.counts.total() == 9 + 3 * max(0, chunks - 1)
    assert hot.whole == whole


def test_without_products_the_longest_innermost_loop_is_hot():
    hot = audit_sass.hot_loop(audit_sass.instructions(NESTED.replace("HMMA.16816.F32.BF16", "FMUL")))
    assert hot.counts == {"FMUL": 1, "FFMA": 1, "BRA": 1}
    assert not hot.whole


def test_a_kernel_without_a_loop_counts_as_one():
    hot = audit_sass.hot_loop(audit_sass.instructions(printed("MOV R1, R2\nEXIT")))
    assert (hot.counts.total(), hot.whole) == (2, True)


@pytest.mark.parametrize(
    "text",
    [
        # Code for warps that have come apart lies behind the kernel's end, and returns to its middle.
        "BRA.DIV UR4, ->apart\nback: FADD R1, R1, R2\nEXIT\napart: WARPSYNC.COLLECTIVE R5, ->next\nnext: BRA ->back",
        # A slow path that was laid behind the end.
        "@P0 BRA ->slow\nback: FADD R1, R1, R2\nEXIT\nslow: FMUL R1, R1, R2\nBRA ->back",
        "wait: SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR7], R2\n@!P1 BRA ->wait\nEXIT",
    ],
)
def test_a_branch_back_is_not_always_a_loop(text):
    assert audit_sass.loops(audit_sass.instructions(printed(text))) == {}


def test_a_far_branch_by_a_call_leads_to_the_code_behind_it():
    # As ptxas writes loops of more than 16 KiB for sm_80: the call is what leaves the loop.
    text = (
        "first: FADD R1, R1, R2\n@P1 CALL.REL.NOINC ->after\nBRA ->first\nafter: FMUL R1, R1, R2\n@P1 BRA ->after\nEXIT"
    )
    assert audit_sass.loops(audit_sass.instructions(printed(text))).keys() == {0x0, 0x30}


@pytest.mark.parametrize(
    ("sass", "ptx", "serialised"),
    [
        # Four of a group, and the wait behind the loop.
        ({"WARPGROUP.ARRIVE": 1, "HGMMA.64x64x16.F32.BF16": 4, "WARPGROUP.DEPBAR.LE": 2}, (4, 2), False),
        ({"WARPGROUP.ARRIVE": 4, "HGMMA.64x64x16.F32.BF16": 4, "WARPGROUP.DEPBAR.LE": 4}, (4, 2), True),
        # The same code twice over.
        ({"WARPGROUP.ARRIVE": 2, "HGMMA.64x64x16.F32.BF16": 8, "WARPGROUP.DEPBAR.LE": 4}, (4, 2), False),
        ({"HMMA.16816.F32.BF16": 8}, (0, 0), False),
    ],
)
def test_wgmma_is_serialised_where_ptxas_waits_more_often_than_it_was_asked(sass, ptx, serialised):
    code = audit_sass.instructions(printed("\n".join(Counter(sass).elements())))
    products, waits = ptx
    text = products * "wgmma.mma_async.sync.aligned.m64n64k16\n" + waits * "wgmma.wait_group.sync.aligned 0;\n"
    assert audit_sass.waits_added(code, text) == serialised


FIRST = "%s = ttng.warp_group_dot %a, %b, %zero {isAsync = true} : tensor<64x32xf32> -> tensor<64x32xf32> loc(#loc5)\n"


@pytest.mark.parametrize(
    ("second", "products"),
    [
        ("", 1),
        # The second half of the columns, as the compiler splits what it holds in registers.
        ("%w:2 = ttng.warp_group_dot_wait %s, %b {pendings = 1 : i32} : tensor<64x32xf32> loc(#loc5)\n"
         "%t = ttng.warp_group_dot %c, %d, %w#0 {isAsync = true} : tensor<64x32xf32> loc(#loc5)\n", 1),
        # Written as two, into one sum or into two.
        ("%t = ttng.warp_group_dot %c, %d, %s {isAsync = true} : tensor<64x32xf32> loc(#loc6)\n", 2),
        ("%t = ttng.warp_group_dot %c, %d, %zero : tensor<64x32xf32> loc(#loc5)\n", 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("n", "narrow"), [(8, 8), (32, 32), (64, 0), (256, 0)])
def test_narrow_sides_are_refused_beside_another_product(second, products, n, narrow):
    assert audit_sass.products(FIRST + second) == products
    ptx = f"wgmma.mma_async.sync.aligned.m64n{n}k8.f32.tf32.tf32 wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32"
    assert audit_sass.narrow_product(ptx, FIRST + second) == (narrow if products > 1 else 0)


@pytest.mark.parametrize(
    ("counts", "matrix", "issue"),
    [
        # A warp group's product of 64 x 256 x 16 by two groups: 2 · 2^18 of 2048 a clock.
        ({"HGMMA.64x256x16.F32.BF16": 1}, 256, 2),
        ({"HGMMA.64x32x8.F32.TF32": 1}, 32, 2),
        ({"HMMA.16816.F32.BF16": 2, "HMMA.1688.F32.TF32": 2}, 8 * (4096 + 4096) / 2048, 8),
        ({"FFMA": 64, "MOV": 64}, 0, 256),
        ({"FSEL": 64, "ISETP.GE.AND": 64, "MOV": 32}, 0, 8 * 128 / 2),
        ({"MUFU.EX2": 32, "FFMA": 32}, 0, 8 * 32 * 2),
        ({"DADD": 32}, 0, 8 * 32 / 2),
    ],
)  # fmt: skip
def test_clocks_are_of_the_busiest_unit(counts, matrix, issue):
    assert audit_cost.matrix_clocks(Counter(counts), SM90, warps=8) == matrix
    assert audit_cost.issue_clocks(Counter(counts), SM90, warps=8) == issue


def test_what_a_setting_says_of_an_iteration():
    product = {"d": 256, "BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_D": 128, "BLOCK_K": 128}
    assert audit_cost.chunks(product) == 2
    assert audit_cost.rows("batch-ensc-bf16-half-256", product) == 64
    first, second = {"HGMMA.64x64x16.F32.BF16": 16}, {"HGMMA.64x128x16.F32.BF16": 4}
    assert audit_cost.useful(Counter(first | second), 8, product) == 4 * 256 / (6 * 256)
    assert audit_cost.useful(Counter(first), 8, product) == 1
    assert audit_cost.useful(Counter(first | second), 8, product | {"BLOCK_D": 256}) == 1
    assert audit_cost.rows("rows-bf16-7-256", {"BLOCK_N": 4, "EMBEDDINGS": 8}) == 28
    signature = {"x_ptr": "*bf16", "dx_ptr": "*fp32", "y_ptr": "*i64"}
    assert audit_cost.streamed_bytes(signature, {"BLOCK_D": 128, "CHUNKS": 4}) == 512 * (2 + 4)
