"""That the rule of random cases sees what it is for: no allowance lets a wrong digit pass."""

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
