"""Blocks on threads of their own: the same numbers, whatever the caller's modes, threads and forks."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from fer_fast import functional
from fer_fast.blocked import contrastive, range_loss, side_by_side
from fer_fast.blocked.side_by_side import each_block, rows_each
from fer_fast.blocked.tiles import spans

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def rows(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1)
    return z.requires_grad_(), torch.randint(3, (n,), generator=generator)


def losses_and_gradients() -> list[torch.Tensor]:
    z, y = rows(50)
    bank_z, bank_y = (t.detach() for t in rows(70))
    calls = (
        partial(functional.ensc_loss, z, y, bank_z, bank_y),
        partial(functional.supcon_loss, z, y, reduction="none"),
        partial(functional.range_loss, z, y),
    )
    values = [call(backend="blocked").sum() for call in calls]
    return [*(value.detach() for value in values), *(torch.autograd.grad(value, z)[0] for value in values)]


def test_every_row_is_visited_once_by_operations_of_one_thread():
    visits, threads = torch.zeros(100), []

    def work(block: slice) -> None:
        visits[block] += 1
        threads.append(torch.get_num_threads())
        assert not torch.is_grad_enabled()

    each_block(work, spans(100, rows_each(100, 512, CPU)), CPU)
    assert visits.eq(1).all()
    assert threads == [1, 1, 1]
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_losses_do_not_depend_on_threads(threads):
    expected = losses_and_gradients()
    torch.set_num_threads(threads)
    for found, right in zip(losses_and_gradients(), expected, strict=True):
        torch.testing.assert_close(found, right)


def test_every_block_of_many(monkeypatch):
    expected = losses_and_gradients()
    monkeypatch.setattr(contrastive, "ANCHORS", 4)
    monkeypatch.setattr(range_loss, "TILE", 4)
    for found, right in zip(losses_and_gradients(), expected, strict=True):
        torch.testing.assert_close(found, right)


def test_an_error_in_a_block_is_the_caller_s():
    def work(block: slice) -> None:
        raise ValueError(f"block {block.start}")

    with pytest.raises(ValueError, match=r"^block 0$"):
        each_block(work, spans(9, 3), CPU)


def test_where_no_more_threads_are_to_be_had_the_caller_works_alone(monkeypatch):
    before, visits = set(threading.enumerate()), torch.zeros(9)
    start = threading.Thread.start

    def refuse_the_second(thread):
        if len(set(threading.enumerate()) - before) >= 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    def work(block: slice) -> None:
        visits[block] += 1

    side_by_side._pool.cache_clear()
    monkeypatch.setattr(threading.Thread, "start", refuse_the_second)
    each_block(work, spans(9, 3), CPU)
    assert visits.eq(1).all()
    assert torch.get_num_threads() == 3
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_callers_of_other_thread_counts_find_their_threads_again():
    def call(threads: int) -> set[str]:
        torch.set_num_threads(threads)
        names = set()
        each_block(lambda block: names.add(threading.current_thread().name), spans(60, 1), CPU)
        assert torch.get_num_threads() == threads
        return names

    side_by_side._pool.cache_clear()
    for threads in (2, 3, 5):
        call(threads)
    before = set(threading.enumerate())
    for threads in (2, 3, 5, 2, 5, 3):
        assert len(call(threads)) <= threads
    assert set(threading.enumerate()) <= before


def test_modes_of_the_caller():
    z, y = (t.detach() for t in rows(50))
    expected = functional.supcon_loss(z, y, backend="reference")
    with torch.inference_mode():
        torch.testing.assert_close(functional.supcon_loss(z.clone(), y, backend="blocked"), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(functional.supcon_loss(z, y, backend="blocked"), expected)


def test_several_callers_at_once():
    expected = losses_and_gradients()

    def call(_) -> list[torch.Tensor]:
        torch.set_num_threads(2)
        return losses_and_gradients()

    with ThreadPoolExecutor(4) as callers:
        for found in callers.map(call, range(8)):
            for got, right in zip(found, expected, strict=True):
                torch.testing.assert_close(got, right)


def _in_child(connection) -> None:
    connection.send([t.sum().item() for t in losses_and_gradients()])


def test_a_fork_has_threads_of_its_own():
    expected = [t.sum().item() for t in losses_and_gradients()]
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(theirs,))
    child.start()
    assert ours.poll(60)
    assert ours.recv() == pytest.approx(expected)
    child.join()


LATE = """
import atexit, threading, time, torch
from fer_fast import functional

torch.set_num_threads(2)
z, y = torch.nn.functional.normalize(torch.randn(64, 8), dim=1), torch.arange(64) % 3


def call(name):
    print(name, functional.supcon_loss(z, y, backend="blocked").isfinite().item(), flush=True)


def late():
    time.sleep(0.5)
    call("thread")


{first}
threading.Thread(target=late).start()
atexit.register(call, "atexit")
"""


@pytest.mark.parametrize("first", ["", "call('main')"], ids=["first", "again"])
def test_an_interpreter_that_is_about_to_end(first):
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    run = [sys.executable, "-W", "ignore", "-c", LATE.format(first=first)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, env=environment)
    assert done.stderr == ""
    assert done.stdout.split()[-4:] == ["thread", "True", "atexit", "True"]
