"""Peak memory of the blocked pairwise and contrastive losses, at sizes where the reference needs gigabytes.

What a call holds at most beyond its inputs, gradient included, must stay below the inputs plus 64 MiB at 65 536 rows.
A pass over so many pairs takes minutes on two cores. The peak there is at most what tiles of their real size hold, and
what grows with the rows: the line through two smaller sizes, with tiles so small that it shows. PyTorch's allocator
counts to the byte, and a buffer of pairs would throw the line far off.
"""

from functools import partial

import pytest
import torch

from fer_fast.blocked import class_table, classifiers, contrastive, pairwise, range_loss, tiles
from fer_fast.blocked.sharded_classifier import sharded_classifier
from fer_fast.terms import CenterTerm, Classifier, Draw, Setting

SIZES, ROWS, WIDTH = (3072, 6144), 65_536, 128
ALLOWANCE = 64 * 2**20

TENTH = Setting(0.1)
CALLS = {
    "marginal": lambda x, y, *_: pairwise.pairwise(x, y, None, "marginal", [1.2, 0.3], True, True),
    "fd": lambda x, y, *_: pairwise.pairwise(x[None], y, torch.rand(7), "fd", [], True, True),
    "range": lambda x, y, *_: range_loss.range_loss(x, y, 2, 5e-5, 1e-4, 2e4, True),
    "range of one class": lambda x, y, *_: range_loss.range_loss(x, y * 0, 2, 5e-5, 1e-4, 2e4, True),
    "range of pairs": lambda x, y, *_: range_loss.range_loss(x, torch.arange(len(x)) // 2, 2, 5e-5, 1e-4, 2e4, True),
    "selfcon": lambda x, y, *_: contrastive.contrastive(x, y, None, None, TENTH, "selfcon", None, "mean", True),
    "supcon": lambda x, y, *_: contrastive.contrastive(x, y, None, None, TENTH, "supcon", None, "mean", True),
    "ensc": lambda *given: contrastive.contrastive(*given, TENTH, "ensc", None, "mean", True),
    "log denominator": lambda *given: contrastive.log_denominator(*given, TENTH, "esc"),
    "its backward": lambda *given: contrastive.log_denominator_backward(given[0][:, 0], *given, TENTH, "esc"),
    "weighted supcon": lambda x, y, *_: contrastive.contrastive(
        x, y, None, None, Setting(1.0, torch.tensor(0.1)), "supcon", x[:, 0].abs(), "mean", True
    ),
}


def inputs(rows: int, bank_rows: int, dtype: torch.dtype) -> tuple:
    generator = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(rows + bank_rows, WIDTH, generator=generator)).to(dtype)
    y = torch.randint(7, (rows + bank_rows,), generator=generator)
    return z[:rows], y[:rows], z[rows:], y[rows:]


def peak(call, given: tuple) -> int:
    """Bytes the allocator had handed out at most at a time during the call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call(*given)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).cumsum(0)
    return int(held.max())


def test_the_measure_sees_a_buffer_of_pairs():
    x = torch.zeros(512, 8)
    assert 512**2 * 4 <= peak(lambda x: (x @ x.T).sum(), (x,)) < 512**2 * 4 + 4096


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loss", CALLS)
def test_peak_at_many_rows(loss, dtype, monkeypatch):
    of_tiles = peak(CALLS[loss], inputs(SIZES[0], 2048, dtype))
    for module, name in ((pairwise, "TILE"), (range_loss, "TILE"), (contrastive, "ANCHORS"), (contrastive, "KEYS")):
        monkeypatch.setattr(module, name, 96)
    monkeypatch.setattr(tiles.rows_per_block, "__defaults__", (2**12,))
    small, large = (peak(CALLS[loss], inputs(rows, 2048, dtype)) for rows in SIZES)
    of_rows = large + (large - small) / (SIZES[1] - SIZES[0]) * (ROWS - SIZES[1])
    assert of_tiles + of_rows < ROWS * WIDTH * dtype.itemsize + ALLOWANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_at_a_large_bank(dtype):
    """1024 anchors against 262 144 rows: a matrix of logits alone is 1 GiB. The bank is read where it lies."""
    assert peak(CALLS["ensc"], inputs(1024, 262_144, dtype)) < ALLOWANCE


@pytest.mark.parametrize(
    ("classifier", "params"),
    [("softmax", []), ("lmcl", [30.0, 0.35]), ("arcface", [64.0, 0.5]), ("a-softmax", [4.0, 5.0])],
)
def test_peak_at_many_classes(classifier, params):
    """1024 rows against 100 000 classes, 390 MiB of logits: beyond the weight's gradient, those of 128 rows."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, WIDTH, generator=generator) for rows in (1024, 100_000))
    y = torch.randint(len(weight), (len(x),), generator=generator)
    terms = Classifier(classifier, weight, params=params), CenterTerm()
    call = partial(class_table.class_table, x, y, *terms, None, None, "mean", False, True)
    beyond = peak(call, ()) - weight.nbytes
    assert beyond < 4 * classifiers.KEPT
    # As a block of a table that several processes have.
    weights, of_all = torch.ones(len(x)), (terms[0], len(weight))
    call = partial(sharded_classifier, x, y, *of_all, weights, "mean", Draw(), True)
    assert peak(call, ()) - weight.nbytes < 4 * classifiers.KEPT
