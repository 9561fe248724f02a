"""Weights to start from: files of other programs and earlier runs, whatever wraps the names, and hostile files."""

import argparse
import collections
import io
import os
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from fer_fast.errors import InputError
from fer_fast.train import weights as module
from fer_fast.train.weights import CONTAINERS, PREFIXES, read_weights
from vggface2 import python_2_pickle

TINY = {"conv1.weight": torch.randn(2, 3, 3, 3), "layer1.0.bn1.bias": torch.randn(4)}


def read_back(stored, folder, name="w.pth"):
    torch.save(stored, folder / name)
    return read_weights(folder / name)


# Names


@pytest.mark.parametrize("prefix", [*PREFIXES, "module._orig_mod.encoder.backbone."])
@pytest.mark.parametrize("inside", [(), *((name,) for name in CONTAINERS), ("model", "state_dict")])
def test_prefixes_and_containers_do_not_matter(tmp_path, prefix, inside):
    stored = {f"{prefix}{name}": value for name, value in TINY.items()}
    for name in reversed(inside):
        stored = {"epoch": 3, "best_acc1": torch.tensor(0.5), name: stored}
    weights = read_back(stored, tmp_path)
    assert weights.tensors.keys() == TINY.keys()
    assert all(torch.equal(weights.tensors[name], value) for name, value in TINY.items())


def test_the_trained_network_is_taken_before_its_average(tmp_path):
    weights = read_back({"ema": {"a": torch.zeros(1)}, "net": {"a": torch.ones(1)}}, tmp_path)
    assert weights.tensors["a"] == 1
    assert weights.source.endswith("(net)")


def test_one_name_with_two_meanings_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"hold conv1\.weight twice, once of them as backbone\.conv1\.weight"):
        read_back({"encoder.conv1.weight": torch.zeros(1), "backbone.conv1.weight": torch.ones(1)}, tmp_path)
    assert read_back({"encoder.a": torch.ones(1), "backbone.a": torch.ones(1)}, tmp_path).tensors.keys() == {"a"}


# Files that are not what they should be


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04cos\nsystem\n(S'true'\ntR."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pkl"])
def test_hostile_files(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read the weights") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        (Call(os.system, "touch executed"), f"{os.name}.system"),
        (Call(shutil.rmtree, "w.pth"), "shutil.rmtree"),
        (argparse.Namespace(x=1), "argparse.Namespace"),
        (collections.deque(), "collections.deque"),
    ],
    ids=["system", "rmtree", "namespace", "deque"],
)
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_what_an_unsafe_file_asks_for_is_named(tmp_path, monkeypatch, value, refused, how):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"a": np.zeros(1), "b": value}, protocol=2))
    else:
        torch.save({"a": torch.zeros(1), "b": value}, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert f"unsafe, it asks for {refused}; save" in str(caught.value)
    assert os.listdir(tmp_path) == ["w.pth"]


@pytest.mark.parametrize("legacy", [False, True])
def test_numpy_numbers_beside_the_tensors_do_no_harm(tmp_path, legacy):
    stored = {"epoch": np.int64(3), "best": np.float64(0.5), "state_dict": TINY}
    torch.save(stored, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert read_weights(tmp_path / "w.pth").tensors.keys() == TINY.keys()


def test_a_tar_archive_is_named(tmp_path):
    with tarfile.open(tmp_path / "w.pth.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())
    with pytest.raises(InputError, match="a tar archive, as PyTorch wrote before 2017"):
        read_weights(tmp_path / "w.pth.tar")


def test_a_packed_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(InputError, match=r"bomb\.pth: 1048576 bytes packed into \d{4}$"):
        read_weights(tmp_path / "bomb.pth")


def test_a_file_that_is_too_large_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 10)
    (tmp_path / "w.pkl").write_bytes(bytes(11))
    with pytest.raises(InputError, match="refused: 11 bytes; allowed: 10"):
        read_weights(tmp_path / "w.pkl")


class Forged:
    """An array in a pickle with any shape, type and content."""

    def __init__(self, shape, code, content):
        self.state = (1, shape, np.dtype(code), False, content)

    def __reduce__(self):
        reconstruct, arguments, _ = np.zeros(1).__reduce__()
        return reconstruct, arguments, self.state


ONE = b"0123" * 100


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (
            {"a": Forged((1 << 40, 1 << 40), "f4", b"0123")},
            "it holds an array of shape (1099511627776, 1099511627776) in 4",
        ),
        ({"a": Forged((-1, -1), "f4", b"0123")}, "it holds an array of shape (-1, -1) in 4 bytes"),
        ({"a": Forged((2,), "f4", b"0123")}, "it holds an array of shape (2,) in 4 bytes"),
        ({"a": Forged((1,), "O", [1])}, "it holds an array of type 'O8'"),
        ({"a": Forged((1,), "f4,i4", b"01234567")}, "it holds an array of type 'V8'"),
        ({str(i): Forged((100,), "f4", ONE) for i in range(100)}, "its arrays are larger than the file"),
        ({"a": np.array([print])}, "unsafe, it asks for"),
    ],
    ids=["huge", "negative", "short", "objects", "records", "shared", "function"],
)
def test_forged_arrays(tmp_path, stored, message):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(stored, protocol=4))
    with pytest.raises(InputError) as caught:
        read_weights(tmp_path / "w.pkl")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little"), "cannot read the weights"),  # so many bytes follow
        (b"\x80\x04]r\xff\xff\xff\x7f.", "hold no tensors by name"),  # remembered under number 2^31 - 1
    ],
)
def test_what_a_pickle_declares_is_not_allocated(tmp_path, content, message):
    (tmp_path / "w.pkl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / "w.pkl")


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_are_left_aside(tmp_path):
    kinds = {
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.zeros(2, dtype=torch.complex64),
        "quantised": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.quint8),
    }
    assert read_back({**kinds, **TINY}, tmp_path).tensors.keys() == TINY.keys()
    with pytest.raises(InputError, match="hold no tensors by name"):
        read_back(kinds, tmp_path)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(InputError, match="no weights file"):
        read_weights(tmp_path / "none.pth")
    for stored in ({}, [1], {"state_dict": {"a": 1}}):
        with pytest.raises(InputError, match="hold no tensors by name"):
            read_back(stored, tmp_path)


# Pickles of numpy arrays


@pytest.mark.parametrize("protocol", [None, 0, 1, 2, 3, 4, 5])
def test_pickles_of_every_age_give_the_arrays(tmp_path, protocol):
    rng = np.random.default_rng(0)
    arrays = {
        "module.conv.weight": rng.standard_normal((4, 3, 5, 5), np.float32),
        "columns": np.asfortranarray(rng.standard_normal((3, 4), np.float32)),
        "scalar": np.array(2.5, np.float32),
    }
    if protocol is not None:
        arrays |= {
            "swapped": rng.standard_normal(3).astype(">f8"),
            "counts": np.arange(4),
            "flags": np.array([True, False]),
        }
    path = tmp_path / "w.pkl"
    path.write_bytes(python_2_pickle(arrays) if protocol is None else pickle.dumps(arrays, protocol=protocol))
    weights = read_weights(path)
    assert weights.geometry == "caffe"
    assert weights.tensors.keys() == {name.removeprefix("module.") for name in arrays}
    for name, array in arrays.items():
        np.testing.assert_array_equal(weights.tensors[name.removeprefix("module.")].numpy(), array)
