"""Kernels compiled ahead of time for chips this machine does not have: no error, no spill, the right matrix unit."""

from dataclasses import replace

import pytest

from fer_fast.dispatch import triton_runs_on
from fer_fast.errors import InputError

if not triton_runs_on("cpu"):
    pytest.skip("the audit needs Triton", allow_module_level=True)

from fer_fast.bench import audit
from fer_fast.bench.audit_resources import CHECKED, CHIPS, ResourceRow, Selection

CLASS_TABLE = {"class_table", "class_table_large"}
ENGINES = CLASS_TABLE | {"ad_corre", "contrastive", "enqueue", "pairwise", "primitives", "range_loss"}
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


def test_products_run_on_the_chips_matrix_unit(rows):
    products = [row for row in rows if row.case.startswith(("sweep-", "batch-"))]
    assert {row.chip for row in products} == set(CHECKED)
    assert [row for row in products if CHIPS[row.chip].matrix not in row.matrix] == []


FITS = ResourceRow("contrastive", "sweep-ensc-bf16-half-256", "sm90", 8, 248, 0, 160 << 10, ["wgmma.mma_async"])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, []),
        ({"spilled": 8}, ["8 bytes spilled"]),
        ({"spilled": 8, "chip": "cdna", "shared": 0, "matrix": ["v_mfma"]}, []),
        ({"shared": 228 << 10}, ["228.0 KiB of shared memory, 227 allowed"]),
        ({"matrix": ["mma.sync"]}, ["no wgmma.mma_async"]),
        ({"case": "sums-softmax-bf16-8-512", "matrix": ["mma.sync"]}, []),
        ({"case": "sums-softmax-bf16-8-512", "matrix": []}, ["no matrix instruction"]),
        ({"case": "sweep-ensc-fp32-float32-256", "matrix": []}, []),
        ({"error": "CompilationError: no"}, ["CompilationError: no"]),
    ],
)
def test_what_breaks_a_limit_is_noticed(change, fault):
    row = replace(FITS, **change)
    assert row.faults == fault
    assert row.over == bool(fault)


@pytest.mark.parametrize(
    ("chip", "warps", "registers", "shared", "occupancy"),
    [
        ("sm90", 8, 32, 0, 1.0),
        # 248 registers are 7936 a warp: two in each quarter of 16384, one program of 8 warps of the 64.
        ("sm90", 8, 248, 0, 8 / 64),
        # 72 registers are 2304 a warp: seven in each quarter, 28 warps, which hold seven programs of 4.
        ("sm80", 4, 72, 0, 28 / 64),
        # (40 + 1) KiB five times in 228.
        ("sm100", 4, 32, 40 << 10, 20 / 64),
        ("sm120", 4, 32, 0, 1.0),
        # 128 registers of 64 threads: four waves on each of four SIMDs of 512.
        ("cdna", 8, 128, 0, 16 / 32),
        ("cdna", 8, 32, 48 << 10, 8 / 32),
    ],
)
def test_occupancy_is_what_the_scarcest_resource_leaves(chip, warps, registers, shared, occupancy):
    assert replace(FITS, chip=chip, warps=warps, registers=registers, shared=shared).occupancy == occupancy


def test_a_kernel_over_its_limit_is_named_and_fails_the_command(monkeypatch, capsys):
    monkeypatch.setattr(audit, "resource_rows", lambda selection: [FITS])
    assert audit.run(["--only", "resources"]) == 0
    monkeypatch.setattr(audit, "resource_rows", lambda selection: [FITS, replace(FITS, chip="sm80", spilled=8)])
    assert audit.run(["--only", "resources"]) == 1
    printed = capsys.readouterr().out
    assert "contrastive sweep-ensc-bf16-half-256 on sm80: 8 bytes spilled\n" in printed
    assert "contrastive sweep-ensc-bf16-half-256 on sm80: no mma.sync\n" in printed


def test_without_triton_the_command_says_so(monkeypatch):
    monkeypatch.setattr(audit, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs Triton"):
        audit.run([])
