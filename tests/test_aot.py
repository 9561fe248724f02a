"""Kernels compiled ahead of time for chips this machine does not have: no error, no spill, the right matrix unit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aot import SHARED_LIMIT

# What a product of bfloat16 has to run on; sm_89 and sm_120 take sm_80's instruction and are compiled by hand.
UNITS = {"sm80": "mma.sync", "sm90": "wgmma.mma_async", "sm100": "tcgen05.mma", "cdna": "v_mfma"}


@pytest.fixture(scope="module")
def reports() -> list[dict]:
    """The marked cases of every engine, for one chip of each kind, in a process without the interpreter."""
    program = [sys.executable, Path(__file__).parent / "aot.py", "--representative"]
    chips = [word for chip in UNITS for word in ("--chip", chip)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([*program, *chips], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_engine_compiles_for_every_chip(reports):
    assert [report for report in reports if "error" in report] == []
    compiled = {(report["engine"], report["chip"]) for report in reports}
    engines = {"ad_corre", "class_table", "contrastive", "enqueue", "pairwise", "primitives", "range_loss"}
    assert {(engine, chip) for engine in engines for chip in UNITS} <= compiled


def test_no_register_spills_and_shared_memory_fits(reports):
    assert [report for report in reports if report["spilled"] and report["chip"] != "cdna"] == []
    assert [report for report in reports if report["shared_kib"] > SHARED_LIMIT[report["chip"]]] == []


def test_products_run_on_the_chips_matrix_unit(reports):
    products = [report for report in reports if report["name"].startswith(("sweep-", "batch-"))]
    assert {report["chip"] for report in products} == set(UNITS)
    assert [report for report in products if UNITS[report["chip"]] not in report["matrix"]] == []
