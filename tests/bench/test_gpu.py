"""`fer-fast bench gpu`: a step may crash, hang, print what it likes or run out of time, and the run goes on; what was
measured is not measured again."""

import json
import time
from dataclasses import replace

import pytest
from fer_fast.bench.command import run
from fer_fast.bench.gpu import driver, plan, record, report
from fer_fast.bench.gpu.step import Asked
from rich.console import Console

from fer_fast.errors import InputError

ENVIRONMENT = {"chip": "Fake 9000", "versions": {"torch": "2", "triton": "3"}, "device": "cuda"}
STEP = """
import os, sys, time
from dataclasses import dataclass
from fer_fast.bench.gpu.step import Result, main

@dataclass
class Row(Result):
    value: float = 1.0

def one():
    yield Row()

def bad():
    {bad}
    yield Row()

def cases(asked):
    yield from (("first", one), ("bad", bad), ("last", one))

if __name__ == "__main__":
    main(cases)
"""


@pytest.fixture
def start(tmp_path):
    """Runs a step whose case "bad" does what is given; returns how it ended and the rows that came."""

    def run_step(bad: str, **asked) -> tuple[driver.Ended, list[dict]]:
        (tmp_path / "fake_step.py").write_text(STEP.format(bad=bad))
        rows: list[dict] = []
        told = vars(replace(Asked(time.time() + 600, rehearse=True), **asked))
        return driver.run("fake_step", told, 60.0, 60.0, {"PYTHONPATH": str(tmp_path)}, rows.append), rows

    return run_step


def said(rows: list[dict]) -> list[tuple[str, str]]:
    return [(row["case"], row["status"]) for row in rows]


def test_a_case_that_raises_fails_alone(start):
    ended, rows = start("raise RuntimeError('no luck\\nat all')")
    assert ended.whole
    assert said(rows) == [("first", "measured"), ("bad", "failed"), ("last", "measured")]
    assert rows[1]["reason"] == "RuntimeError: no luck"


def test_a_case_that_does_not_fit_is_skipped(start):
    _, rows = start("import torch; raise torch.OutOfMemoryError('out of memory')")
    assert said(rows)[1] == ("bad", "skipped")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("print('all is lost', file=sys.stderr); os._exit(7)", "exit 7: all is lost"),
        ("sys.stderr.flush(); os.abort()", "SIGABRT: no word of why"),
    ],
)
def test_a_crash_is_told_with_its_case_and_the_last_word(start, bad, reason):
    ended, rows = start(bad)
    assert (ended.whole, ended.case, ended.status, ended.reason) == (False, "bad", "failed", reason)
    assert said(rows) == [("first", "measured")]


@pytest.fixture
def play(tmp_path):
    """Runs a program of a few lines as a step."""

    def run_program(program: str, limit: float = 60.0, silence: float = 60.0) -> tuple[driver.Ended, list[dict]]:
        (tmp_path / "program.py").write_text(program)
        rows: list[dict] = []
        return driver.run("program", {}, limit, silence, {"PYTHONPATH": str(tmp_path)}, rows.append), rows

    return run_program


ROW = 'print(\'{"case": "a", "status": "measured"}\\n{"begin": "b"}\', flush=True)'


def test_a_hang_ends_when_nothing_has_come_for_long(play):
    ended, rows = play(f"{ROW}\nimport time\ntime.sleep(600)", silence=3.0)
    assert (ended.whole, ended.case, ended.status) == (False, "b", "timed out")
    assert ended.reason == "nothing came for 3 s"
    assert said(rows) == [("a", "measured")]


def test_a_step_ends_at_its_limit_and_nothing_of_it_runs_on(play, tmp_path):
    mark = tmp_path / "still there"
    child = f"import time, pathlib; time.sleep(6); pathlib.Path({str(mark)!r}).touch()"
    began = time.monotonic()
    ended, _ = play(f"{ROW}\nimport subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])", limit=3.0)
    assert (ended.case, ended.status, ended.reason) == ("b", "timed out", "its 3 s were over")
    time.sleep(max(0.0, began + 8 - time.monotonic()))
    assert not mark.exists()


def test_what_libraries_print_is_no_row(start):
    ended, rows = start("print('hello'); os.write(1, b'{}')")
    assert ended.whole
    assert said(rows) == [("first", "measured"), ("bad", "measured"), ("last", "measured")]


def test_a_program_that_prints_garbage_is_told(play):
    ended, rows = play('print("hello\\n[1]\\n{\\"case\\": 1}")')
    assert not ended.whole
    assert [row["status"] for row in rows] == ["failed"] * 3
    assert rows[0]["reason"] == "printed what is no row: 'hello'"


def test_a_missing_package_skips_the_step_in_one_line(play):
    ended, _ = play("import no_such_package")
    assert ended.status == "skipped"
    assert ended.reason == "exit 1: ModuleNotFoundError: No module named 'no_such_package'"


def test_cases_that_are_done_are_left_out_and_late_ones_told(start):
    _, rows = start("raise RuntimeError", done=("bad", "first"))
    assert said(rows) == [("last", "measured")]
    _, rows = start("raise RuntimeError", ends=0.0)
    assert [(row["status"], row["reason"]) for row in rows] == [("skipped", "from first on: its time was over")]


# A run


class Steps:
    """In place of programs: each start of a step tells the rows, and ends, as its script says."""

    def __init__(self, scripts: dict[str, list[tuple[list[dict], driver.Ended]]], environment: dict):
        self.scripts, self.environment, self.told = scripts, environment, []

    def __call__(self, module, asked, limit, silence, environment, heard):
        name = module.rpartition(".")[2]
        self.told.append((name, asked["done"]))
        if name == "probe":
            heard({"case": "machine", "status": "measured", "environment": self.environment, "capability": "9.0"})
            return driver.Ended(whole=True)
        rows, ended = self.scripts[name].pop(0)
        for row in rows:
            heard(row)
        return ended


def row(case: str, status: str = "measured", **more) -> dict:
    return {"case": case, "status": status, "reason": "", **more}


WHOLE = driver.Ended(whole=True)


@pytest.fixture
def go(tmp_path, monkeypatch):
    """A run of the steps named over scripts; returns its record and the starts of programs, the probe's left out."""

    def take(scripts: dict, only=("parity", "repeats"), seconds=300.0, again=False, environment=ENVIRONMENT):
        steps = Steps(scripts, environment)
        monkeypatch.setattr(plan, "run", steps)
        asked = plan.Run(seconds, only, tmp_path, False, again, "", Asked(0), say=lambda _: None)
        return plan.go(asked), steps.told[1:]

    return take


def test_rows_are_on_disk_with_what_they_are_of(go, tmp_path):
    found, _ = go({"parity": [([row("a", error=0.5)], WHOLE)], "repeats": [([row("b")], WHOLE)]})
    lines = [json.loads(line) for line in (tmp_path / "fake-9000.jsonl").read_text().splitlines()]
    assert lines == found.rows
    assert [(line["step"], line["case"]) for line in lines[1:]] == [("parity", "a"), ("repeats", "b")]
    assert lines[1] | {"date": ""} == {
        **row("a", error=0.5),
        **ENVIRONMENT,
        "step": "parity",
        "kernels": record.kernels(),
        "rehearsal": False,
        "date": "",
    }


def test_a_step_that_crashes_goes_on_behind_the_case_and_the_run_goes_on(go):
    crash = driver.Ended(False, "b", "failed", "SIGSEGV: oh")
    found, told = go(
        {
            "parity": [([row("a"), row("x", "wrong")], crash), ([row("c")], WHOLE)],
            "repeats": [([row("d")], WHOLE)],
        }
    )
    assert told == [("parity", ()), ("parity", ("a", "x", "b")), ("repeats", ())]
    assert said(found.rows[1:]) == [
        *(("a", "measured"), ("x", "wrong"), ("b", "failed"), ("c", "measured"), ("d", "measured"))
    ]


def test_a_step_that_ends_outside_of_a_case_is_not_started_again(go):
    broken = driver.Ended(False, "", "skipped", "ModuleNotFoundError")
    found, told = go({"parity": [([], broken)], "repeats": [([], WHOLE)]})
    assert [name for name, _ in told] == ["parity", "repeats"]
    assert said(found.rows[1:]) == [("", "skipped")]


def test_steps_without_time_are_told(go):
    found, told = go({}, seconds=1.0)
    assert told == []
    assert said(found.rows[1:]) == [("", "skipped")] * 2


def test_a_tool_is_not_started_for_less_than_its_start_takes(go):
    found, told = go({"repeats": [([row("a")], WHOLE)]}, only=("repeats", "sanitizer", "profile"), seconds=30.0)
    assert [name for name, _ in told] == ["repeats"]
    assert [line["reason"] for line in found.rows[2:]] == ["not 40 s were left"] * 2


def test_what_was_measured_is_not_measured_again(go, monkeypatch):
    statuses = ("measured", "wrong", "timed", "refused", "failed", "skipped", "running", "timed out")
    go({"parity": [([row(status, status) for status in statuses], WHOLE)]}, only=("parity",))

    def asked(**how):
        return go({"parity": [([], WHOLE)]}, only=("parity",), **how)[1][0][1]

    assert asked() == ("measured", "wrong", "timed", "refused")
    assert asked(again=True) == ()
    assert asked(environment=ENVIRONMENT | {"versions": {"torch": "3", "triton": "3"}}) == ()
    assert asked(environment=ENVIRONMENT | {"chip": "Fake-9000"}) == ()  # another chip of the same file
    monkeypatch.setattr(record, "kernels", lambda: "others")
    assert asked() == ()


def test_what_another_machine_compiled_is_compiled_again(go):
    go({"compile": [([row("parity")], WHOLE)]}, only=("compile",))
    assert go({"compile": [([], WHOLE)]}, only=("compile",))[1] == [("compile", ())]


def test_a_last_line_cut_short_is_dropped_and_any_other_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": "a"}\n{"step": "b')
    assert record.read(path) == [{"step": "a"}]
    assert path.read_text() == '{"step": "a"}\n'
    path.write_text('{"step": "a"}\nnonsense\n{"step": "b"}\n')
    with pytest.raises(InputError, match="line 2"):
        record.read(path)


def test_kernels_are_told_apart_by_commit_or_by_their_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(record.rows, "ROOT", tmp_path)
    monkeypatch.setattr(record, "KERNELS", tmp_path / "kernels")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "a.py").write_text("1")
    first = record.kernels()
    (tmp_path / "kernels" / "a.py").write_text("2")
    second = record.kernels()
    assert first.startswith("sources-")
    assert first != second
    (tmp_path / ".git").mkdir()
    answers = {"log": "abc1234", "status": ""}
    monkeypatch.setattr(record.rows, "git", lambda *words: answers[words[0]])
    assert record.kernels() == "abc1234"
    answers["status"] = " M kernels/a.py"
    assert record.kernels() == f"abc1234-{second}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "party"], 'did you mean "parity"'),
        (["--minutes", "0"], "--minutes: 0"),
        (["--minutes", "nan"], "--minutes: nan"),
        (["--rehearse"], "--rehearse needs --out"),
        (["--prepare"], "--prepare needs --cache"),
        (["--fer2013", "nowhere"], "--fer2013: no folder nowhere"),
    ],
)
def test_bad_arguments_are_named_before_anything_starts(words, message, monkeypatch):
    monkeypatch.setattr(plan, "go", None)
    with pytest.raises(InputError, match=message):
        run(["gpu", *words])


def test_without_a_gpu_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "run", lambda *_: driver.Ended(False, "machine", "failed", "no CUDA device"))
    with pytest.raises(InputError, match=r"no GPU can be used \(no CUDA device\)"):
        run(["gpu", "--out", str(tmp_path)])


def test_failures_are_one_line_for_each_reason(go):
    rows = [row(f"case {n}", "skipped", **{"reason": "not installed"}) for n in range(3)] + [row("x", "failed")]
    found, _ = go({"parity": [(rows, WHOLE)], "repeats": [([], WHOLE)]})
    assert report.failures(found)[0] == "parity: case 0 and 2 more: skipped, not installed"


# What a person reads

SHAPE = {"n": 64, "d": 32, "classes": 7, "k": 0, "bank": 0}
LOSS = {"loss": "center", "dtype": "bfloat16", "shape": SHAPE}
TILE = {"table": "CLASS_TILES", "key": "sm90, 2, 512", "present": {"block_n": 16, "num_warps": 8}}


def tried(block_n: int, seconds: float | None, status: str = "measured", reason: str = "", present=2e-3) -> dict:
    setting = {"block_n": block_n, "num_warps": 8}
    more = {"setting": setting, "seconds": seconds, "present_seconds": present, "reason": reason}
    return row(f"tile {block_n}", status, **LOSS, **TILE) | more


def timed(contender: str, seconds: float, backend: str = "triton") -> dict:
    times = {"q10": seconds, "q50": seconds, "q90": seconds, "fraction": 0.5, "peak_bytes": 2**20}
    return row("both center", "timed", **LOSS, **times) | {"contender": contender, "backend": backend}


ROWS = {
    "parity": [
        row("center bfloat16", **LOSS, backend="triton", budget_used=0.25),
        row("lmcl bfloat16", **LOSS, backend="blocked", budget_used=0.75),
        row("fd float16", "wrong", **LOSS, backend="triton", budget_used=3.0) | {"reason": "de: error 1, allowed 0.3"},
        row("md float16", "failed") | {"reason": "RuntimeError: oh"},
    ],
    "timings": [timed("fer_fast", 1e-3), timed("captured", 5e-4), timed("eager", 3e-3)],
    "kernels": [
        row("center bfloat16", **LOSS, floor_bytes=10**9, copy_rate=4e12, called_seconds=5e-4, replayed_seconds=8e-4)
        | {way: [{"name": "rows", "seconds": 5e-4, "calls": 1.0}] for way in ("called", "replayed")}
    ],
    "tiles": [tried(32, 1e-3), tried(8, 1.5e-3), tried(64, None, "refused", "OutOfResources: shared memory")],
    "repeats": [row("center", **LOSS, repetitions=1000, differ=[])],
    "sanitizer": [row("memcheck C 7", "wrong", errors=2, first=["========= Invalid read"]) | {"reason": "2 found"}],
}


def test_the_table_says_what_was_right_wrong_fast_and_better(go, capsys):
    found, _ = go({step: [(rows, WHOLE)] for step, rows in ROWS.items()}, only=tuple(ROWS))
    assert report.wrong(found)
    report.show(Console(highlight=False), found)
    said = capsys.readouterr().out
    for line in (
        "Fake 9000, kernels",
        "parity: 2 of 3 right, 2 of them asked of kernels",
        "most of its error budget: lmcl bfloat16, 75%",
        "wrong: fd float16: de: error 1, allowed 0.3",
        "parity: md float16: failed, RuntimeError: oh",
        "tile settings: 2 measured, 1 refused, 0 wrong; better than the present one in 1 of 1 places",
        "refused: OutOfResources 1",
        "the same bits in 1000 to 1000 repetitions: 1 of 1",
        "memcheck C 7 2 found",
        "========= Invalid read",
    ):
        assert line in said
    (line,) = (line for line in said.splitlines() if line.startswith("center") and " both " in line)
    assert line.split()[:9] == ["center", "bfloat16", "both", "64×32", "C7", "500", "µs", "50%", "1.00"]
    assert line.split()[9:] == ["ms", "0%", "3.00×", "-", "-", "50%", "1", "MiB", "1", "MiB"]
    (line,) = (line for line in said.splitlines() if " rows " in line)
    assert line.split()[5:] == ["500", "µs", "1", "500", "µs", "1", "2", "TB/s", "50%"]
    (line,) = (line for line in said.splitlines() if "CLASS_TILES" in line)
    assert "block_n=32" in line
    assert "1.00 ms" in line
    assert "2.00 ms" in line


def test_a_setting_that_is_right_where_the_present_one_is_not_is_shown(go, capsys):
    found, _ = go({"tiles": [([tried(32, 1e-3, present=None)], WHOLE)]}, only=("tiles",))
    report.show(Console(highlight=False), found)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "CLASS_TILES" in line)
    assert "wrong" in line


def test_what_failed_first_and_was_measured_then_is_no_failure(go):
    rows = [row("both center", "failed"), *ROWS["timings"]]
    found, _ = go({"timings": [(rows, WHOLE)]}, only=("timings",))
    assert report.failures(found) == []
    assert not report.wrong(found)
