"""`fer-fast bench gpu --rehearse`: every step runs to its last line on a machine without a GPU."""

import os
import sys
from collections import defaultdict

import pytest

from fer_fast.dispatch import triton_runs_on

if not triton_runs_on("cpu"):
    pytest.skip("rehearsed in Triton's interpreter", allow_module_level=True)

from fer_fast.bench.command import run
from fer_fast.bench.gpu import plan, record
from fer_fast.bench.gpu.step import FINAL

# Run the program they are given, as the real ones do, and say what those would say of it.
TOOL = """#!{python}
import subprocess, sys
done = subprocess.run(sys.argv[sys.argv.index({python!r}):], capture_output=True, text=True)
print(done.stdout + done.stderr + {end!r})
"""
ENDS = {
    "compute-sanitizer": "========= ERROR SUMMARY: 0 errors",
    "ncu": '"ID","Kernel Name","gpu__time_duration.sum"\n"","","us"\n"0","sweep","12"\n',
}


@pytest.fixture
def tools(tmp_path, monkeypatch):
    for name, end in ENDS.items():
        tool = tmp_path / name
        tool.write_text(TOOL.format(python=sys.executable, end=end))
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("tools")
def test_every_step_runs_to_its_last_line(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["gpu", "--rehearse", "--out", str(out), "--cache", str(tmp_path / "cache")]
    assert run(words) == 0
    said, rows = capsys.readouterr().out, record.read(out / "rehearsal.jsonl")
    by_step = defaultdict(list)
    for row in rows:
        assert row["rehearsal"] is True
        assert all((row["date"], row["kernels"], row["versions"]["triton"]))
        by_step[row["step"]].append(row)
    assert [step for step in by_step if step != "probe"] == list(plan.NAMES)
    for step, found in by_step.items():
        # What a CPU has no second of, or a loss no labels for, is skipped with its reason.
        allowed = ("running", "skipped") if step in ("graphs", "training") else ()
        assert {row["status"] for row in found} <= {*FINAL, *allowed} - {"wrong", "refused"}, (step, found)
    assert [path.name for path in out.iterdir()] == ["rehearsal.jsonl"]
    for line in ("rehearsed: no measurements", "10 of 10 right", "tile settings: 2 measured", "graph: 2 of 2 right"):
        assert line in said
    assert "memcheck C 7 0 found" in said
    # A second run finds all of it done; what was compiled is looked for again.
    assert run([*words, "--only", ",".join(name for name in plan.NAMES if name not in ("compile", "graphs"))]) == 0
    added = record.read(out / "rehearsal.jsonl")[len(rows) :]
    assert [row["step"] for row in added] == ["probe"]
