"""The bench: floors by hand, who is checked before being timed, rows that survive a round trip, the command."""

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from fer_fast.bench import driver, measure, readme, rows, table
from fer_fast.bench.check import truth
from fer_fast.bench.contenders import COMPILED, EAGER, FER_FAST, Contender, installed
from fer_fast.bench.measure import Gauge, in_turns, input_sets, peak_bytes
from fer_fast.bench.peers import PEERS
from fer_fast.bench.problems import SWEEPS, Problem, Shape, quick, sweep

from fer_fast import cli
from fer_fast.errors import InputError
from fer_fast.registry import LOSSES

CPU = torch.device("cpu")
SMALL = {
    "classifier": Shape(n=33, d=20, classes=5),
    "center": Shape(n=33, d=20, classes=5),
    "correlation": Shape(n=33, d=20, classes=5, k=3),
    "pairwise": Shape(n=33, d=20, classes=5),
    "contrastive": Shape(n=34, d=20, classes=5),
}
BANKED = Shape(n=34, d=20, classes=5, bank=19)


def small(loss: str, dtype: str = "float32") -> Problem:
    return Problem(loss, BANKED if loss in ("esc", "ensc") else SMALL[LOSSES[loss].family], dtype)


class StillGauge:
    """Yardsticks without a measurement: 1 GB/s, 1 GFLOP/s."""

    def read(self) -> measure.Yardsticks:
        return measure.Yardsticks(1e9, 1e9)


def setting(*contenders: Contender) -> driver.Setting:
    return driver.Setting(contenders, CPU, StillGauge(), 0.0, rows.environment(CPU), lambda problem: "fer-fast bench")


def fake(name: str, change) -> tuple[Contender, list]:
    """A contender that gives `change(right answer)`, and the list of its calls."""
    calls = []

    def bind(problem, inputs):
        step = EAGER.bind(problem, inputs)

        def run():
            calls.append(problem)
            return change(step())

        return run

    return Contender(name, bind), calls


# Floors


def test_floor_of_marginal_is_two_products_and_one_pass():
    floor = Problem("marginal", Shape(n=100, d=10)).floor
    assert floor.operations == (1 + 2) * 100 * 100 * 10  # half of a symmetric product, and a whole one
    assert floor.bytes == 100 * 10 * 4 + 100 * 10 * 4 + 100 * 8  # x read, dx written, labels


def test_floor_of_a_bank_grows_with_its_storage_dtype():
    def slope(dtype: str) -> tuple[int, int]:
        few, many = (Problem("ensc", Shape(n=64, d=32, bank=bank), dtype).floor for bank in (100, 200))
        return many.bytes - few.bytes, many.operations - few.operations

    assert slope("float32") == (100 * (32 * 4 + 8), 100 * 4 * 64 * 32)
    assert slope("bfloat16") == (100 * (32 * 2 + 8), 100 * 4 * 64 * 32)


@pytest.mark.parametrize(("loss", "passes"), [("center", 2), ("variant", 2), ("mva", 7), ("ad-corre", 3), ("ed", 2)])
def test_floor_per_added_sample(loss, passes):
    k = 3 if LOSSES[loss].family == "correlation" else 0
    one, two = (Problem(loss, Shape(n=n, d=32, k=k)).floor for n in (1000, 1001))
    assert two.bytes - one.bytes == passes * max(k, 1) * 32 * 4 + 8


def test_floor_time_is_the_longer_of_traffic_and_arithmetic():
    floor = Problem("lmcl", Shape(n=1000, d=64, classes=10)).floor
    assert floor.seconds(1e9, 1e30) == floor.bytes / 1e9
    assert floor.seconds(1e30, 1e9) == 6 * 1000 * 10 * 64 / 1e9


def test_a_classifier_of_one_class_more_does_three_more_products():
    few, many = (Problem("softmax", Shape(n=10, d=8, classes=c)).floor for c in (5, 6))
    assert many.operations - few.operations == 3 * 2 * 10 * 8


# Checks


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_measured_and_right(loss):
    ours, eager = driver.run_problem(small(loss), setting(FER_FAST, EAGER))
    for row in (ours, eager):
        assert row.status == "timed", row.reason
        assert row.q10 <= row.q50 <= row.q90
        assert row.budget_used <= 1
        assert row.checked_against == "reference float64"
        assert row.fraction == small(loss).floor.seconds(1e9, 1e9) / row.q50
        assert row.peak_bytes > 0


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # scipy's, inside a peer
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peers_compute_the_same_function(loss, peer):
    problem = small(loss)
    if not peer.offers(problem):
        assert peer.missing
        return
    if reason := peer.unavailable(CPU):
        pytest.skip(reason)
    inputs = problem.inputs(CPU)
    verdict = truth(problem, inputs).judge(peer, problem, inputs.to())
    assert verdict.right, verdict.reason


@pytest.mark.parametrize(
    "change",
    [
        lambda right: right | {"loss": right["loss"] * 1.00001},
        lambda right: right | {"dx": right["dx"].flip(0)},
        lambda right: right | {"dx": right["dx"] * torch.nan},
        lambda right: right | {"dx": right["dx"][1:]},
        lambda right: {name: t for name, t in right.items() if name != "centers"},
        lambda right: 1 / 0,
    ],
    ids=["loss", "gradient", "nan", "shape", "no centers", "raises"],
)
def test_a_wrong_contender_is_named_and_never_timed(change):
    liar, calls = fake("liar", change)
    wrong, eager = driver.run_problem(small("center"), setting(liar, EAGER))
    assert (wrong.status, wrong.q50, wrong.peak_bytes) == ("wrong", None, None)
    assert wrong.reason
    assert len(calls) == 1
    assert eager.status == "timed"
    assert "liar, center 33×20 C5: wrong" in table.failures([[wrong, eager]])[0]


def test_slack_is_for_others_alone():
    """An error of five budgets is this library's failure and a peer's rounding; a hundred is nobody's."""
    problem = small("center")
    right = truth(problem, problem.inputs(CPU))

    def outputs(budgets: float) -> dict:
        allowed = {name: bound + torch.finfo(torch.float64).eps for name, bound in right.allowed.items()}
        return {name: t * (1 + budgets * allowed[name]) for name, t in right.outputs.items()}

    for budgets, ours, theirs in ((0.5, True, True), (5, False, True), (100, False, False)):
        assert right.compare(outputs(budgets), FER_FAST.slack).right is ours
        assert all(right.compare(outputs(budgets), peer.slack).right is theirs for peer in PEERS if peer.bind)


def test_a_right_contender_is_timed():
    honest, calls = fake("honest", lambda right: right)
    (row,) = driver.run_problem(small("center"), setting(honest))
    assert row.status == "timed"
    assert row.rounds >= measure.MIN_ROUNDS
    assert len(calls) >= row.rounds


def test_a_contender_that_cannot_fit_is_skipped_with_the_reason(monkeypatch):
    monkeypatch.setattr("fer_fast.bench.contenders.free_bytes", lambda device: 1000)
    ours, eager = driver.run_problem(small("supcon"), setting(FER_FAST, EAGER))
    assert eager.status == "skipped"
    assert "would need about" in eager.reason
    assert ours.status == "timed"
    assert ours.checked_against == "blocked float64"


@pytest.mark.parametrize("loss", ["softmax", "center", "ensc"])
def test_half_precision_features_are_judged_by_autocast(loss):
    contenders = [FER_FAST, EAGER, *(p for p in PEERS if p.offers(small(loss)) and not p.unavailable(CPU))]
    for row in driver.run_problem(small(loss, "bfloat16"), setting(*contenders)):
        assert row.status == "timed", row.reason


def test_compiled_reference_moves_centers_after_its_backward(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)  # compiling takes half a minute on a CPU
    (row,) = driver.run_problem(small("variant"), setting(COMPILED))
    assert row.status == "timed", row.reason
    assert row.compile_seconds > 0


# Stopwatches


def test_contenders_take_turns_and_inputs_rotate():
    order = []
    steps = [[lambda c=c, s=s: order.append((c, s)) for s in range(2)] for c in range(2)]
    times = in_turns(steps, CPU, 0.0)
    assert order[:4] == [(0, 0), (0, 1), (1, 0), (1, 1)]  # to warm up
    assert order[4:10] == [(0, 0), (1, 1), (0, 1), (1, 0), (0, 0), (1, 1)]  # no set that the other has just read
    assert [t.rounds for t in times] == [measure.MIN_ROUNDS] * 2


def test_peak_memory_counts_what_is_held_at_a_time():
    def step():
        first = torch.ones(2**20)
        second = first + first
        del first
        third = second + second
        return {"loss": third}

    assert 8 * 2**20 <= peak_bytes(step, CPU) < 8 * 2**20 + 4096


def test_small_inputs_get_more_sets_than_the_cache_holds():
    assert input_sets(2**40, CPU) == 1
    assert input_sets(1, CPU) == measure.MAX_SETS
    size = measure.cache_bytes(CPU)
    assert input_sets(size, CPU) * size > 2 * size


def test_the_gauge_keeps_the_best_of_a_run():
    gauge = Gauge("float32", CPU)
    gauge.source, gauge.target = torch.ones(2**16), torch.ones(2**16)
    gauge.a = gauge.b = torch.ones(64, 64)
    first, second = gauge.read(), gauge.read()
    assert 0 < first.copy_rate <= second.copy_rate
    assert 0 < first.matrix_rate <= second.matrix_rate


# Rows


@pytest.fixture(scope="module")
def measured():
    return driver.run_problem(small("marginal"), setting(FER_FAST, EAGER))


def test_rows_survive_a_file(measured, tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    rows.append(path, measured[:1])
    rows.append(path, measured[1:])
    assert rows.read(path) == measured


@pytest.mark.parametrize("change", [{"more": 1}, {"status": "fast"}, {"q50": None}], ids=str)
def test_a_line_that_is_no_row_is_named(measured, tmp_path, change):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(asdict(measured[0]) | change) + "\n")
    with pytest.raises(InputError, match="line 1"):
        rows.read(path)


def test_the_latest_row_of_a_measurement_counts(measured):
    newer = [replace(row, q50=1.0) for row in measured]
    assert rows.latest([*measured, *newer]) == newer
    elsewhere = replace(measured[0], threads=99)
    assert rows.latest([*measured, elsewhere]) == [*measured, elsewhere]


@pytest.mark.parametrize("path", sorted((rows.ROOT / "bench" / "results").glob("*.jsonl")), ids=lambda path: path.name)
def test_committed_rows_are_rows_of_losses_there_are(path):
    for row in rows.read(path):
        assert row.loss in LOSSES
        assert row.device in ("cpu", "cuda")
        assert row.command.startswith(f"fer-fast bench --loss {row.loss} ")


def test_sweeps_grow_one_side_and_hold_the_quick_shape():
    problems = sweep(list(LOSSES), "float32", "cpu")
    assert len(set(problems)) == len(problems)
    assert set(quick(list(LOSSES), "float32", "cpu")) <= set(problems)
    for loss, (axis, _) in SWEEPS.items():
        shapes = [asdict(p.shape) for p in problems if p.loss == loss]
        assert len({tuple((shape | {axis: 0}).items()) for shape in shapes}) == 1
        assert len({shape[axis] for shape in shapes}) == len(shapes) > 2


# The command


def bench(*arguments: str) -> int:
    return cli.main(["bench", *arguments])


@pytest.fixture
def quick_gauge(monkeypatch):
    monkeypatch.setattr("fer_fast.bench.command.Gauge", lambda dtype, device: StillGauge())


def test_the_command_measures_prints_and_keeps(quick_gauge, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    given = ("--loss", "center", "--shape", "n=33,d=20", "--seconds", "0", "--against", "eager", "--out", str(out))
    assert bench(*given) == 0
    text = capsys.readouterr().out
    assert "center" in text
    assert "33×20 C7" in text
    kept = rows.read(out)
    assert [row.contender for row in kept] == ["fer_fast", "eager"]
    assert cli.main([*shlex.split(kept[0].command)[1:], "--out", str(out)]) == 0
    assert [row.shape for row in rows.read(out)] == [kept[0].shape] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--loss", "cemter"), 'did you mean "center"'),
        (("--shape", "m=3"), "--shape"),
        (("--shape", "n=0"), "above zero"),
        (("--against", "eagre"), 'did you mean "eager"'),
        (("--dtype", "int8"), "--dtype"),
        (("--device", "toaster"), "--device"),
        (("--backend", "cuda"), "backend"),
        (("--threads", "0"), "--threads"),
        (("--fulll",), "--full"),
        (("--record", "--out", "x"), "one of them"),
        (("charts", "--results", "/nowhere"), "--record"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    assert bench(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_table_fits_a_hundred_columns(measured, capsys):
    from rich.console import Console

    wide = replace(measured[0], loss="weighted-cluster", shape=asdict(Shape(n=512, d=128, bank=65536)), q50=0.123)
    peer = replace(wide, contender="pytorch-metric-learning", q50=12.3, peak_bytes=123 * 2**20)
    slow = replace(peer, contender="eager")
    table.show(Console(width=100), [[wide, slow, peer]], [])
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 100


# Charts


@pytest.fixture
def recorded(measured, tmp_path):
    """Rows as if marginal had been swept, eager stopping before the end."""
    kept = []
    for problem in sweep(["marginal"], "float32", "cpu"):
        floor = problem.floor
        kept += [
            replace(row, shape=asdict(problem.shape), floor_bytes=floor.bytes, floor_operations=floor.operations)
            for row in measured
        ]
    unmeasured = dict.fromkeys(("q10", "q50", "q90", "rounds", "peak_bytes", "fraction"))
    kept[-1] = replace(kept[-1], status="skipped", reason="would need about 9 GiB", **unmeasured)
    rows.append(tmp_path / "results" / "chip.jsonl", kept)
    return tmp_path


def test_charts_and_table_come_from_rows(recorded, capsys):
    page = recorded / "README.md"
    page.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    given = ("charts", "--results", str(recorded / "results"), "--out", str(recorded / "charts"))
    assert bench(*given, "--readme", str(page)) == 0
    pictures = [Path(line.removeprefix("drew ")) for line in capsys.readouterr().err.splitlines()]
    assert [picture.stem.split("-")[-1] for picture in pictures] == ["pairwise", "summary"]
    assert all(0 < picture.stat().st_size < 200_000 for picture in pictures)
    text = page.read_text()
    assert text.startswith(f"before\n{readme.BEGIN}\n")
    assert text.endswith(f"\n{readme.END}\nafter\n")
    assert "old" not in text
    assert "| marginal | `n=2048,d=256,classes=7` |" in text


def test_a_readme_without_markers_is_left_alone(recorded, capsys):
    page = recorded / "README.md"
    page.write_text("nothing to replace")
    assert bench("charts", "--results", str(recorded / "results"), "--out", str(recorded), "--readme", str(page)) == 2
    assert page.read_text() == "nothing to replace"


# Timed by pytest-benchmark where it is enabled: pytest tests/bench/test_bench.py --benchmark-enable -k speed


@pytest.mark.parametrize("contender", [FER_FAST, EAGER], ids=lambda contender: contender.name)
@pytest.mark.parametrize("loss", SWEEPS)
def test_speed(benchmark, loss, contender):
    problem = small(loss)
    inputs = problem.inputs(CPU)
    verdict = truth(problem, inputs).judge(contender, problem, inputs.to())
    assert verdict.right, verdict.reason
    benchmark(contender.bind(problem, inputs))


def test_versions_of_what_is_not_installed_are_none():
    assert installed("no-such-package") is None
