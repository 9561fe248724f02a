"""Checkpoints: round trip, atomic replacement, and files that are not what they should be."""

import json
import os
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from fer_fast.errors import InputError
from fer_fast.train.checkpoint import (
    below,
    load_checkpoint,
    load_resume,
    optimiser_tensors,
    prefixed,
    restore_optimiser,
    save_checkpoint,
    save_resume,
)

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3), "b.empty": torch.zeros(0, 4)}


FILES = {
    "checkpoint": (save_checkpoint, load_checkpoint, ["checkpoint.json", "checkpoint.safetensors"]),
    "resume": (save_resume, load_resume, ["log.jsonl", "resume.safetensors"]),
}
both_files = pytest.mark.parametrize("kind", FILES)


@both_files
def test_round_trip(tmp_path, kind):
    save, load, names = FILES[kind]
    strided = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    expected = {"history": [{"epoch": 1}, {"epoch": 2}], "classes": ["ä", "b"]}
    save(tmp_path, {**TENSORS, "conv": strided}, expected)
    tensors, state = load(tmp_path)
    assert state == expected
    assert tensors.keys() == {*TENSORS, "conv"}
    assert all(torch.equal(tensors[name], value) for name, value in {**TENSORS, "conv": strided}.items())
    assert sorted(os.listdir(tmp_path)) == names


def test_copies_for_people(tmp_path):
    state = {"history": [{"epoch": 1}, {"epoch": 2}], "classes": ["ä", "b"]}
    save_resume(tmp_path, TENSORS, state)
    assert (tmp_path / "log.jsonl").read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    assert load_resume(tmp_path, tensors=False) == ({}, state)
    save_checkpoint(tmp_path, TENSORS, state)
    assert json.loads((tmp_path / "checkpoint.json").read_text(encoding="utf-8")) == state
    assert load_checkpoint(tmp_path / "checkpoint.safetensors")[1] == state


@both_files
@pytest.mark.parametrize("at", [0, 1])
def test_a_stop_between_any_two_writes_leaves_one_consistent_file(tmp_path, monkeypatch, at, kind):
    save, load, _ = FILES[kind]
    save(tmp_path, {"x": torch.zeros(2)}, {"epoch": 1, "history": []})
    replaced = []

    def stop(source, target):
        if len(replaced) == at:
            raise KeyboardInterrupt
        replaced.append(target)
        real(source, target)

    real = os.replace
    monkeypatch.setattr("fer_fast.written.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, {"x": torch.ones(2)}, {"epoch": 2, "history": []})
    tensors, state = load(tmp_path)
    assert state["epoch"] == (1 if at == 0 else 2)
    assert tensors["x"].tolist() == [state["epoch"] - 1] * 2


@both_files
def test_a_failed_write_keeps_the_old_file_and_leaves_no_rubbish(tmp_path, monkeypatch, kind):
    save, load, names = FILES[kind]
    save(tmp_path, {"x": torch.zeros(2)}, {"epoch": 1, "history": []})

    def full(*_args, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fer_fast.written.os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*safetensors: No space left on device"):
        save(tmp_path, {"x": torch.ones(2)}, {"epoch": 2, "history": []})
    assert load(tmp_path)[1]["epoch"] == 1
    assert sorted(os.listdir(tmp_path)) == names


@both_files
@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_cut_file_is_refused_in_one_line(tmp_path, keep, kind):
    save, load, names = FILES[kind]
    save(tmp_path, TENSORS, {"epoch": 1, "history": []})
    path = tmp_path / names[1]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"{kind}\.safetensors is corrupt or unreadable"):
        load(tmp_path)


def test_a_file_of_someone_else_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not a checkpoint of fer-fast"):
        load_checkpoint(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none")


def test_each_file_says_where_the_other_is(tmp_path):
    save_resume(tmp_path, TENSORS, {"history": []})
    with pytest.raises(InputError, match=r"the state to resume from; the weights are in .*/checkpoint\.safetensors"):
        load_checkpoint(tmp_path / "resume.safetensors")
    save_checkpoint(tmp_path, TENSORS, {})
    (tmp_path / "resume.safetensors").unlink()
    with pytest.raises(InputError, match=r"no resume\.safetensors; --model\.weights .*/checkpoint\.safetensors starts"):
        load_resume(tmp_path)


def test_the_one_file_of_version_1_gives_its_selected_weights(tmp_path):
    state = {"weights": "best", "classes": ["a"]}
    named = {**prefixed("learner", {"x": torch.zeros(1)}), **prefixed("best", {"x": torch.ones(1)})}
    metadata = {"format": "fer-fast 1", "state": json.dumps(state)}
    save_file(named, tmp_path / "checkpoint.safetensors", metadata)
    tensors, found = load_checkpoint(tmp_path)
    assert (tensors, found) == ({"x": torch.ones(1)}, state)
    with pytest.raises(InputError, match=r"holds weights but no resume\.safetensors"):
        load_resume(tmp_path)


def test_prefixes():
    named = {**prefixed("ema", TENSORS), **prefixed("ema2", TENSORS)}
    assert below("ema", named) == TENSORS
    assert below("none", named) == {}


@pytest.mark.parametrize("shape", [(3,), (4, 2, 3, 3), (4, 1, 3, 3), (4, 2, 1, 1)])
@pytest.mark.parametrize(
    "make",
    [
        partial(torch.optim.SGD, momentum=0.9, fused=True),
        torch.optim.SGD,
        partial(torch.optim.Adam, amsgrad=True, fused=True),
        partial(torch.optim.AdamW, fused=True),
        torch.optim.AdamW,
        partial(torch.optim.Adagrad, fused=True),
        partial(torch.optim.RMSprop, momentum=0.9, centered=True),
        torch.optim.Adafactor,
    ],
)
def test_a_restored_optimiser_takes_the_same_step(tmp_path, make, shape):
    order = torch.channels_last if len(shape) == 4 else torch.contiguous_format

    def step(parameter, optimiser):
        parameter.grad = torch.randn(shape).to(memory_format=order)
        optimiser.step()

    first = torch.nn.Parameter(torch.ones(shape).to(memory_format=order))
    optimiser = make([first], lr=0.1)
    step(first, optimiser)
    save_resume(tmp_path, {**prefixed("o", optimiser_tensors(optimiser)), "p": first}, {"history": []})
    tensors, _ = load_resume(tmp_path)
    second = torch.nn.Parameter(tensors["p"].to(memory_format=order))
    restored = make([second], lr=0.1)
    restore_optimiser(restored, below("o", tensors))
    for parameter, its in ((first, optimiser), (second, restored)):
        torch.manual_seed(0)
        step(parameter, its)
    assert torch.equal(first, second)
