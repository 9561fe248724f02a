"""The steps of `fer-fast bench gpu`: what each calls wrong, which engine ran, which settings are tried and compiled."""

import os
import re
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from fer_fast import dispatch
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES

if not triton_runs_on("cpu"):
    pytest.skip("rehearsed in Triton's interpreter", allow_module_level=True)

from fer_fast.bench import check, launches
from fer_fast.bench.child import lines
from fer_fast.bench.command import run
from fer_fast.bench.gpu import (
    capture,
    compile,
    engines,
    graphs,
    kernels,
    parity,
    profile,
    repeats,
    sanitizer,
    shapes,
    tiles,
    timings,
)
from fer_fast.bench.gpu.step import Asked
from fer_fast.bench.problems import Problem, Shape

CPU = torch.device("cpu")
ASKED = Asked(time.time() + 3600, rehearse=True)
MARGINAL = Problem("marginal", Shape(n=18, d=17, classes=5))


def changed(monkeypatch, module, change) -> None:
    """The step's contender gives `change(right answer)`."""
    right = engines.OURS.bind

    def bind(problem, inputs):
        step = right(problem, inputs)
        return lambda: change(step())

    monkeypatch.setattr(module, "OURS", replace(engines.OURS, bind=bind))


# Shapes


def test_every_loss_is_checked_in_every_dtype_and_half_first():
    problems = parity.problems(rehearse=False)
    assert {(p.loss, p.dtype) for p in problems} == {(loss, dtype) for loss in LOSSES for dtype in shapes.HALF_FIRST}
    assert [p.loss for p in problems[: len(LOSSES)]] == list(LOSSES)  # all of them before any again
    assert all(p.shape.n % 2 == 0 for p in problems if p.loss == "selfcon")
    assert len(set(map(shapes.name, problems))) == len(problems)


def test_rehearsed_is_one_loss_of_each_engine():
    assert {LOSSES[name].engine for name in shapes.REHEARSED} == {spec.engine for spec in LOSSES.values()}


SHRUNK = """
import json, sys
from dataclasses import replace
from fer_fast.bench.gpu import compile, shapes
from fer_fast.bench.problems import Shape
for loss in sys.argv[1:]:
    for n, bank in ((333, 400), (4096, 401)):
        given = shapes.problem(loss, Shape(n=n, d=64, classes=7, k=3, bank=bank))
        first = compile.launch("sm90", compile.Job(shapes.shrunk(given)))
        print(json.dumps([loss, first[2], *compile.launch("sm90", compile.Job(given))]))
"""


def test_few_rows_compile_what_many_do(tmp_path):
    """Of those kernels whose arguments hold the number of rows, in strides or shares of the keys."""
    (tmp_path / "shrunk.py").write_text(SHRUNK)
    environment = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    found = lines("shrunk", "ensc", "ad-corre", "variant", "range", **environment)
    assert [(refused, compiled, why) for _, refused, compiled, _, why in found] == [("", 0, "")] * 8


# Parity


def test_an_answer_is_right_or_wrong_and_its_backend_seen(monkeypatch):
    (row,) = parity.check(MARGINAL, ASKED)
    assert (row.status, row.backend, row.checked_against) == ("measured", "triton", "reference float64")
    assert 0 < row.budget_used <= 1
    changed(monkeypatch, parity, lambda right: right | {"dx": right["dx"] * 1.001})
    (row,) = parity.check(MARGINAL, ASKED)
    assert row.status == "wrong"
    assert row.reason.startswith("dx: error 0.001")


def test_a_call_that_kernels_refuse_is_told():
    (row,) = parity.check(Problem("ad-corre", Shape(n=9, d=8, classes=33, k=2)), ASKED)
    assert (row.status, row.backend) == ("measured", "blocked")


def test_outputs_are_poisoned_in_every_module_that_has_them():
    with_outputs = [module for module in engines.modules() if hasattr(module, "_empty")]
    assert len(with_outputs) > 5
    with engines.poisoned():
        assert all(module._empty((2,), dtype=torch.float32).isnan().all() for module in with_outputs)
    assert all(module._empty is torch.empty for module in with_outputs)


# Repetitions, graphs


def test_other_bits_are_seen(monkeypatch):
    (row,) = repeats.check(MARGINAL, ASKED)
    assert (row.status, row.repetitions, row.differ) == ("measured", repeats.REHEARSED_REPETITIONS, [])
    calls = iter(range(100))
    changed(monkeypatch, repeats, lambda right: right | {"loss": right["loss"] * (1 + 1e-6 * (next(calls) > 1))})
    (row,) = repeats.check(MARGINAL, ASKED)
    assert (row.status, row.differ) == ("wrong", ["loss"])


def test_bits_tell_zeros_apart_and_not_a_number_is_itself():
    zeros = torch.tensor([0.0, -0.0, torch.nan], dtype=torch.float16)
    assert (repeats.bits(zeros) == repeats.bits(zeros)).all()
    assert repeats.bits(zeros)[0] != repeats.bits(zeros)[1]


@pytest.mark.parametrize("ask", [graphs.two_streams, graphs.graph])
def test_results_that_depend_on_other_work_are_wrong(ask, monkeypatch):
    assert ask(MARGINAL, ASKED) == []
    calls = iter(range(100))
    changed(monkeypatch, repeats, lambda right: right | {"dx": right["dx"] + (next(calls) > 1)})
    assert ask(MARGINAL, ASKED)[0].startswith("dx")


def test_a_bad_label_has_to_raise_and_leave_the_next_call_right():
    center = Problem("center", Shape(n=9, d=8, classes=5))
    assert graphs.bad_label(center, ASKED) == []
    assert graphs.bad_label(MARGINAL, ASKED) == "looks at no table"


def test_a_bad_label_that_passes_is_wrong(monkeypatch):
    monkeypatch.setattr(graphs, "LABELLED", ("pairwise",))
    assert graphs.bad_label(MARGINAL, ASKED)[0] == "a loss of a bad label that is a number"


# Tiles


def test_the_grid_is_around_the_present_setting():
    present = tiles.tables()["PAIR_TILES"]["cpu", "half", 32]
    found = tiles.around(present)
    assert present not in found
    assert len(set(found)) == len(found)
    assert present._replace(block_m=2 * present.block_m) in found
    assert present._replace(num_warps=8, num_stages=2) in found
    assert all(tile.num_stages > 0 for tile in found)
    assert {tile.precision for tile in found} == {present.precision}
    full = tiles.tables()["PAIR_TILES"]["cpu", "float32", 32]
    assert {tile.precision for tile in tiles.around(full)} == set(tiles.FULL_FLOAT32)


def test_settings_that_launches_take_are_found():
    found = {(setting.table, setting.key) for setting in tiles.settings(MARGINAL, torch.device("cpu"))}
    assert found == {("PAIR_TILES", ("cpu", "float32", 32))}
    center = Problem("center", Shape(n=9, d=100, classes=5))
    assert ("ROW_TILES", ("cpu", 128, 16)) in {
        (each.table, each.key) for each in tiles.settings(center, torch.device("cpu"))
    }


def test_a_setting_is_checked_timed_and_taken_back(monkeypatch):
    setting = tiles.settings(MARGINAL, torch.device("cpu"))[0]
    before = tiles.tables()[setting.table][setting.key]
    (row,) = tiles.measure(MARGINAL, setting, ASKED)
    assert (row.status, row.setting) == ("measured", setting.tile._asdict())
    assert row.seconds > 0
    assert row.present_seconds > 0
    assert tiles.tables()[setting.table][setting.key] == before
    changed(monkeypatch, tiles, lambda right: right | {"loss": right["loss"] * 1.01})
    (row,) = tiles.measure(MARGINAL, setting, ASKED)
    assert (row.status, row.seconds) == ("wrong", None)
    tiles._present.cache_clear()


def test_a_step_recorded_for_replay_moves_no_center(monkeypatch):
    def record_as_a_gpu_does(self, step, device):
        self.step, self.graph = step, None
        step()  # a warm-up: it moves the centers

    monkeypatch.setattr(capture.Captured, "__init__", record_as_a_gpu_does)
    given = shapes.problem("center", MARGINAL.shape, "float32")
    inputs = given.inputs(CPU)
    right = check.truth(given, inputs)
    assert right.judge(capture.CAPTURED, given, inputs.to()).right


def test_kernels_are_launched_for_an_absent_chip_where_the_interpreter_cannot_run(monkeypatch):
    monkeypatch.setattr(dispatch, "interpreter_fault", lambda: "another numpy is needed")
    with pytest.raises(ValueError, match="another numpy"):
        dispatch.resolve("triton", CPU)
    with launches.launching_on(launches.AbsentChip("sm90")):
        assert dispatch.resolve("triton", CPU) == "triton"


def test_a_right_setting_is_found_where_the_present_one_is_wrong(monkeypatch):
    setting = tiles.settings(MARGINAL, torch.device("cpu"))[0]
    monkeypatch.setattr(tiles.Truth, "judge", lambda *_: SimpleNamespace(reason="loss: error 1"))
    tiles._present.cache_clear()
    (row,) = tiles.measure(MARGINAL, setting, ASKED)
    assert (row.status, row.present_seconds) == ("measured", None)
    assert row.seconds > 0
    tiles._present.cache_clear()


def test_a_setting_that_does_not_run_is_refused():
    setting = tiles.settings(MARGINAL, torch.device("cpu"))[0]
    odd = setting._replace(tile=setting.tile._replace(block_m=17))
    (row,) = tiles.measure(MARGINAL, odd, ASKED)
    assert (row.status, row.seconds) == ("refused", None)
    assert row.reason


# Timings


def test_forward_alone_takes_less_of_everything():
    both, forward = timings.problems(rehearse=False)[:2]
    assert replace(forward, gradient=True) == both
    assert forward.floor.bytes < both.floor.bytes
    assert forward.floor.operations < both.floor.operations
    assert not forward.inputs(torch.device("cpu")).leaves if forward.shape.bank < 1000 else True


# Kernels


def test_the_kernels_of_a_step_are_counted_and_the_longest_come_first(monkeypatch):
    def event(name, microseconds, of=DeviceType.CUDA):
        return SimpleNamespace(name=name, device_type=of, time_range=SimpleNamespace(elapsed_us=lambda: microseconds))

    events = [event("rows", 400), event("scale", 180), event("rows", 402), event("scale", 184)]
    events.append(event("aten::empty", 9e9, DeviceType.CPU))
    watched = SimpleNamespace(events=lambda: events)
    monkeypatch.setattr(kernels, "profile", lambda **_: nullcontext(watched))
    monkeypatch.setattr(kernels, "STEPS", 2)
    steps = []
    found, seconds = kernels.seen(lambda: steps.append(1), SimpleNamespace(device=CPU, rehearse=False))
    assert [(kernel.name, kernel.calls) for kernel in found] == [("rows", 1.0), ("scale", 1.0)]
    assert [kernel.seconds for kernel in found] == pytest.approx([401e-6, 182e-6])
    assert seconds == pytest.approx(583e-6)
    assert len(steps) == capture.WARM_UPS + 2


# Tools


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a tool on the path that says that a loss was launched, and an end."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sanitizer, "REHEARSED", ("marginal",))

    def put(name: str, end: str) -> Asked:
        tool = tmp_path / name
        said = ["========= COMPUTE-SANITIZER", "marginal", end]
        tool.write_text(f"#!{sys.executable}\nprint(*{said!r}, sep='\\n')")
        tool.chmod(0o755)
        return replace(ASKED, folder=str(tmp_path))

    return put


def sanitized(asked: Asked):
    (row,) = next(iter(sanitizer.cases(asked)))[1]()
    return row


def test_what_the_sanitizer_finds_is_wrong(install):
    found = "========= Invalid __global__ read of size 4 bytes\n========= ERROR SUMMARY: 3 errors"
    row = sanitized(install("compute-sanitizer", found))
    assert (row.status, row.errors) == ("wrong", 3)
    assert row.first[0] == "========= Invalid __global__ read of size 4 bytes"
    row = sanitized(install("compute-sanitizer", "========= ERROR SUMMARY: 0 errors"))
    assert (row.status, row.errors) == ("measured", 0)
    row = sanitized(install("compute-sanitizer", "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors)"))
    assert (row.status, row.errors) == ("wrong", 2)


def test_a_sanitizer_that_takes_too_long_tells_how_far_it_came(install, tmp_path):
    asked = install("compute-sanitizer", "")
    with (tmp_path / "compute-sanitizer").open("a") as tool:
        tool.write("\nimport sys, time\nsys.stdout.flush()\ntime.sleep(60)")
    row = sanitized(replace(asked, ends=time.time() + 2))
    assert row.status == "timed out"
    assert row.reason == "after 2 s, 1 of 1 losses"


def test_a_sanitizer_that_did_not_run_has_found_nothing(install):
    row = sanitized(install("compute-sanitizer", "Device not supported"))
    assert (row.status, row.errors, row.reason) == ("failed", None, "Device not supported")


NCU = """"ID","Kernel Name","gpu__time_duration.sum","sm__warps_active.avg.pct_of_peak_sustained_active"
"","","us","%"
"0","short","1.5","10"
"1","long","1,200.5","n/a"
"""


def test_the_hottest_kernel_is_read_from_the_profiler(install):
    (row,) = next(iter(profile.cases(install("ncu", NCU))))[1]()
    assert (row.status, row.kernel) == ("measured", "long")
    assert row.share == pytest.approx(1200.5 / 1202)
    assert row.counters["seconds"] == pytest.approx(1200.5e-6)
    assert row.counters["warps"] is None


# Compiled ahead


def test_what_is_prepared_is_found_wherever_it_is_carried(tmp_path, capsys):
    there, here = tmp_path / "there", tmp_path / "here"
    words = ["gpu", "--prepare", "--rehearse", "--cache"]

    def compiled() -> list[int]:
        return [int(count) for count in re.findall(r"(\d+) for 1 steps", capsys.readouterr().out)]

    assert run([*words, str(there)]) == 0
    first = compiled()
    assert len(first) == len(compile.PARTS)
    assert sum(first) > 5
    shutil.copytree(there, here)
    shutil.rmtree(there)
    entries = sorted(path.name for path in here.iterdir())
    assert run([*words, str(here)]) == 0
    assert compiled() == [0] * len(first)
    assert sorted(path.name for path in here.iterdir()) == entries


@pytest.mark.parametrize(("capability", "chip"), [("9.0", "sm90"), ("8.0", "sm80"), ("12.0", "sm120"), ("7.5", "")])
def test_the_chip_to_compile_for_is_known_by_its_capability(capability, chip):
    assert compile.family_of(capability) == chip
