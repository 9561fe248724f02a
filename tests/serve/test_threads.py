"""Networks on one core each, beside threads that find faces."""

import threading

import numpy as np
import pytest
import torch

from fer_fast.data.prepare import Prepared
from fer_fast.serve import model as model_module
from fer_fast.serve.model import load
from fer_fast.serve.threads import cores, each_on_one_core
from untrained import untrained


def test_parts_are_done_in_order_by_threads_of_one_core_and_the_caller_keeps_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        told = each_on_one_core(lambda part: (part, torch.get_num_threads(), threading.get_ident()), range(20))
        assert [part for part, *_ in told] == [*range(20)]
        assert {number for _, number, _ in told} == {1}
        assert threading.get_ident() not in {ident for *_, ident in told}
        assert torch.get_num_threads() == 3
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
        with pytest.raises(ZeroDivisionError):
            each_on_one_core(lambda part: 1 / part, [1, 0])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_calls_that_overlap_leave_the_number_as_it_was():
    """That of threads that begin later, also where a caller began while another was at work."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    first_done, second_begun = threading.Event(), threading.Event()

    def second():
        torch.ones(1).sum()  # from here on the thread has its own number
        each_on_one_core(lambda _part: (second_begun.set(), first_done.wait(10)), [0])
        each_on_one_core(lambda part: part, [0])

    def wait_for_second(_part):
        other.start()
        assert second_begun.wait(10)

    other, later = threading.Thread(target=second), []
    try:
        each_on_one_core(wait_for_second, [0])
        first_done.set()
        other.join()
        assert torch.get_num_threads() == 3
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
    finally:
        torch.set_num_threads(before)


def test_scores_do_not_depend_on_the_threads(tmp_path, monkeypatch):
    model, rng = load(untrained(tmp_path), "cpu"), np.random.default_rng(0)
    faces = [Prepared(rng.integers(0, 255, (48, 48, 1), dtype=np.uint8), True, (0, 0, 48, 48)) for _ in range(37)]
    found = []
    for count in (1, 4):
        monkeypatch.setattr(model_module, "cores", lambda count=count: count)
        found.append(model.score(faces))
    for one, other in zip(*found, strict=True):
        assert one.shape[0] == 37
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert cores() >= 1
