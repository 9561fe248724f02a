"""That the rule of random cases sees what it is for: no allowance lets a wrong digit pass."""

import math

import torch

import fuzz_rule
from fuzz import draw_case

OFF = 1e-5  # 84 roundings of float32


def test_results_that_are_off_are_found(monkeypatch):
    right, seen = fuzz_rule.evaluate, []

    def wrong(spec, tensors, options, backend):
        results = right(spec, tensors, options, backend=backend)
        return {name: t * (1 + OFF * (backend == "blocked")) for name, t in results.items()}

    monkeypatch.setattr(fuzz_rule, "evaluate", wrong)
    for case in (draw_case(0, number, "blocked") for number in range(120)):
        if case.dtype in (torch.float32, torch.float64) and case.kind not in ("nan", "inf"):
            seen.append(bool(fuzz_rule.check(case)))
    assert sum(seen) > 0.7 * len(seen)  # the others are 0, or not finite


def test_memory_that_nobody_wrote_is_found(monkeypatch):
    right, seen = fuzz_rule.evaluate, []

    def unwritten(spec, tensors, options, backend):
        results = right(spec, tensors, options, backend=backend)
        return results | {"loss": results["loss"] + 0 * torch.empty(1) * (backend == "blocked")}

    monkeypatch.setattr(fuzz_rule, "evaluate", unwritten)
    for case in (draw_case(0, number, "blocked") for number in range(1, 80, fuzz_rule.POISONED)):
        if case.kind not in ("nan", "inf", "nan table") and case.feature_scale == case.table_scale == 1:
            seen.append((fuzz_rule.check(case), case))
    assert seen
    assert not [each for each in seen if not each[0].startswith("loss: ")]
    assert not torch.are_deterministic_algorithms_enabled()


def test_rows_that_take_no_part_leave_every_allowance_a_number():
    left_out = 0
    for case in (draw_case(3, number, "triton") for number in range(600)):
        if case.kind not in ("nan", "inf", "nan table"):
            assert all(map(math.isfinite, fuzz_rule.cancelling(case).values())), case
            left_out += bool(case.row_weights)
    assert left_out
