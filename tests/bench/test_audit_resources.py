"""Kernels compiled ahead of time for chips this machine does not have: no error, no spill in a loop, the right matrix
unit, used as it should be, and no more instructions than allowed."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fer_fast.dispatch import triton_runs_on
from fer_fast.errors import InputError

if not triton_runs_on("cpu"):
    pytest.skip("the audit needs Triton", allow_module_level=True)

from fer_fast.bench import audit, audit_limits
from fer_fast.bench.audit_resources import CHECKED, CHIPS, ResourceRow, Selection

CLASS_TABLE = {"class_table"}
ENGINES = CLASS_TABLE | {
    *("ad_corre", "bank", "contrastive", "directions", "large_centers", "large_classifier", "pairwise", "primitives"),
    *("range_loss", "survey"),
}
# Half of all the time is the class table's; sm_120 runs sm_80's instructions, and may spill.
ON_SM120 = sorted(ENGINES - CLASS_TABLE)


@pytest.fixture(scope="module")
def rows() -> list[ResourceRow]:
    others = [chip for chip in CHECKED if chip != "sm120"]
    return audit.resource_rows(Selection(chips=others)) + audit.resource_rows(Selection(ON_SM120, ["sm120"]))


def test_every_engine_compiles_within_the_limits_of_every_chip(rows):
    assert [(row, row.faults) for row in rows if row.over] == []
    compiled = {(row.engine, row.chip) for row in rows}
    assert compiled == {(engine, chip) for chip in CHECKED for engine in (ON_SM120 if chip == "sm120" else ENGINES)}


def test_every_known_fault_and_limit_is_of_a_kernel_that_has_it(rows):
    found = {(row.engine, row.case, row.chip): row.found for row in rows}
    for kernel, faults in audit_limits.known().items():
        assert set(faults) <= set(found[kernel]), kernel
    assert {(*kernel, audit_limits.LIMITED_ON) for kernel in audit_limits.limits()} <= found.keys()


def test_hot_loops_hold_the_work_that_their_tiles_say(rows):
    # S and G K of 128 anchors by 64 keys and 256 columns, each 2048 multiply-adds a clock.
    [sweep] = [row for row in rows if (row.case, row.chip) == ("sweep-ensc-bf16-half-256", "sm90")]
    assert sweep.matrix_clocks == 2 * 128 * 64 * 256 / 2048
    assert sweep.rows == 64
    assert 0 < sweep.bound <= 1
    on_cuda = [row for row in rows if row.chip != "cdna"]
    assert [row for row in on_cuda if not row.instructions] == []


@pytest.fixture(scope="module")
def examples() -> dict[str, ResourceRow]:
    script = Path(__file__).parents[1] / "helpers" / "audit_kernels.py"
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    return {row["case"]: ResourceRow(**row) for row in map(json.loads, done.stdout.splitlines())}


def test_narrow_wgmma_is_refused_only_beside_another_product(examples):
    assert examples["narrow-pair"].faults == ["wgmma of side 16 in a kernel of several products"]
    assert examples["narrow-alone"].faults == examples["wide-pair"].faults == []
    assert all(row.matrix == ["wgmma.mma_async"] for case, row in examples.items() if not case.startswith("spills"))


def test_a_spill_is_a_fault_in_a_loop_and_a_note_outside(examples):
    inside, outside = examples["spills-inside"], examples["spills-outside"]
    assert inside.faults == [f"{inside.spilled} bytes spilled, in a loop too"]
    assert outside.faults == []
    assert outside.spilled > 0


def test_products_run_on_the_chips_matrix_unit(rows):
    products = [row for row in rows if row.case.startswith(("sweep-", "batch-"))]
    assert {row.chip for row in products} == set(CHECKED)
    assert [row for row in products if CHIPS[row.chip].matrix not in row.matrix] == []


SWEEP = audit_limits.LIMITS["contrastive", "sweep-ensc-bf16-half-256"]
SUMS = audit_limits.LIMITS["ad_corre", "sums-bf16-7-256"]
FITS = ResourceRow("contrastive", "sweep-ensc-bf16-half-256", "sm90", 8, 248, 0, 160 << 10, ["wgmma.mma_async"])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, []),
        ({"spilled": 8}, []),
        ({"spilled": 8, "spills_in_loops": 3}, ["8 bytes spilled, in a loop too"]),
        ({"spilled": 8, "spills_in_loops": 3, "chip": "sm120", "shared": 0, "matrix": ["mma.sync"]}, []),
        ({"spilled": 8, "chip": "cdna", "shared": 0, "matrix": ["v_mfma"]}, []),
        ({"registers": 4}, ["compiled to an empty kernel"]),
        ({"narrow_product": 32}, ["wgmma of side 32 in a kernel of several products"]),
        ({"serialised": True}, ["wgmma serialised by ptxas"]),
        ({"instructions": 1200}, [f"1200 instructions a tile, {SWEEP.newest} allowed"]),
        ({"instructions": 1200, "chip": "sm100", "matrix": ["tcgen05.mma"]}, []),
        ({"case": "sums-bf16-7-256", "engine": "ad_corre", "warps": 4, "rows": 16, "instructions": 1600},
         [f"400 instructions a row, {SUMS.newest} allowed"]),
        ({"shared": 228 << 10}, ["228.0 KiB of shared memory, 227 allowed"]),
        ({"matrix": ["mma.sync"]}, ["no wgmma.mma_async"]),
        ({"case": "sums-softmax-bf16-8-512", "matrix": ["mma.sync"]}, []),
        ({"case": "sums-softmax-bf16-8-512", "matrix": []}, ["no matrix instruction"]),
        ({"case": "sweep-ensc-fp32-float32-256", "matrix": []}, []),
        ({"error": "CompilationError: no"}, ["CompilationError: no"]),
    ],
)  # fmt: skip
def test_what_breaks_a_limit_is_noticed(change, fault, monkeypatch):
    monkeypatch.setattr(audit_limits, "version", lambda name: "3.8.0")
    row = replace(FITS, **change)
    assert row.faults == fault
    assert row.over == bool(fault)


def test_what_a_version_cannot_help_is_let_pass_there_and_no_more_of_it(monkeypatch):
    kernel, fault = (FITS.engine, FITS.case, FITS.chip), "8 bytes spilled, in a loop too"
    monkeypatch.setattr(audit_limits, "KNOWN", {(3, 6): {kernel: (fault,)}})
    spills, worse = (replace(FITS, spilled=bytes_, spills_in_loops=3) for bytes_ in (8, 16))
    monkeypatch.setattr(audit_limits, "version", lambda name: "3.6.0")
    assert (spills.found, spills.faults, spills.over) == ([fault], [], False)
    assert worse.faults == ["16 bytes spilled, in a loop too"]
    assert replace(spills, chip="sm80", matrix=["mma.sync"]).faults == [fault]
    monkeypatch.setattr(audit_limits, "version", lambda name: "3.8.0+git1")
    assert spills.faults == [fault]


def test_a_limit_is_the_one_of_the_version_installed(monkeypatch):
    limit = audit_limits.Limit("tile", newest=400, before=500)
    for installed, most in (("3.6.0", 500), ("3.8.0", 400), ("3.10.1", 400)):
        monkeypatch.setattr(audit_limits, "version", lambda name, installed=installed: installed)
        assert limit.most == most


@pytest.mark.parametrize(
    ("chip", "warps", "registers", "shared", "programs"),
    [
        ("sm90", 8, 32, 0, 8),
        # 248 registers are 7936 a warp: two in each quarter of 16384, one program of 8 warps.
        ("sm90", 8, 248, 0, 1),
        # 72 registers are 2304 a warp: seven in each quarter, 28 warps, which hold seven programs of 4.
        ("sm80", 4, 72, 0, 7),
        # (40 + 1) KiB five times in 228.
        ("sm100", 4, 32, 40 << 10, 5),
        ("sm120", 4, 32, 0, 12),
        # 128 registers of 64 threads: four waves on each of four SIMDs of 512.
        ("cdna", 8, 128, 0, 2),
        ("cdna", 8, 32, 48 << 10, 1),
    ],
)
def test_programs_are_what_the_scarcest_resource_leaves(chip, warps, registers, shared, programs):
    assert replace(FITS, chip=chip, warps=warps, registers=registers, shared=shared).programs == programs


@pytest.mark.parametrize(
    ("clocks", "bound"),
    [
        ((2048, 1678, 2048), 1),
        ((2048, 4096, 2048), 0.5),
        ((1536, 1000, 1024), 2 / 3),
        ((0, 500, 1000), 1),
        ((0, 500, 0), 0),
    ],
)
def test_the_bound_is_what_the_slower_unit_leaves_of_the_floor(clocks, bound):
    assert (
        replace(FITS, **dict(zip(("matrix_clocks", "issue_clocks", "floor_clocks"), clocks, strict=True))).bound
        == bound
    )


def test_a_kernel_over_its_limit_is_named_and_fails_the_command(monkeypatch, capsys):
    monkeypatch.setattr(audit, "resource_rows", lambda selection: [FITS])
    assert audit.run(["--only", "resources"]) == 0
    spills = replace(FITS, chip="sm80", spilled=8, spills_in_loops=3)
    monkeypatch.setattr(audit, "resource_rows", lambda selection: [FITS, spills])
    assert audit.run(["--only", "resources"]) == 1
    printed = capsys.readouterr().out
    assert "contrastive sweep-ensc-bf16-half-256 on sm80: 8 bytes spilled, in a loop too\n" in printed
    assert "contrastive sweep-ensc-bf16-half-256 on sm80: no mma.sync\n" in printed


def test_without_triton_the_command_says_so(monkeypatch):
    monkeypatch.setattr(audit, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs Triton"):
        audit.run([])
