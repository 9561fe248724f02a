"""Weights to start from: files of other programs, hostile files, names, the networks of VGGFace2, earlier runs."""

import argparse
import collections
import io
import os
import pickle
import re
import shutil
import tarfile
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from fer_fast.data.augment import AugmentConfig, Normalise
from fer_fast.errors import InputError
from fer_fast.train import weights as module
from fer_fast.train.backbones import BACKBONES, build_backbone
from fer_fast.train.checkpoint import save_checkpoint
from fer_fast.train.config import ModelConfig
from fer_fast.train.models import Encoder
from fer_fast.train.transfer import CaffeInput, load_encoder, match_weights
from fer_fast.train.weights import CONTAINERS, PREFIXES, Weights, read_weights


def network(name="resnet18", channels=3, seed=0, **keywords):
    """A backbone whose every tensor, statistics included, is its own."""
    torch.manual_seed(seed)
    backbone = build_backbone(name, channels, **keywords)
    for key, value in backbone.network.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return backbone.eval()


def loaded(backbone, weights):
    backbone.network.load_state_dict(match_weights(backbone, weights).found, strict=False)
    return backbone.eval()


def assert_same_function(one, other, images):
    with torch.inference_mode():
        torch.testing.assert_close(one(images), other(images), rtol=1e-4, atol=1e-5)


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


TINY = {"conv1.weight": torch.randn(2, 3, 3, 3), "layer1.0.bn1.bias": torch.randn(4)}


def test_the_trained_network_is_taken_before_its_average(tmp_path):
    weights = read_back({"ema": {"a": torch.zeros(1)}, "net": {"a": torch.ones(1)}}, tmp_path)
    assert weights.tensors["a"] == 1
    assert weights.source.endswith("(net)")


def test_one_name_with_two_meanings_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"hold conv1\.weight twice, once of them as backbone\.conv1\.weight"):
        read_back({"encoder.conv1.weight": torch.zeros(1), "backbone.conv1.weight": torch.ones(1)}, tmp_path)
    assert read_back({"encoder.a": torch.ones(1), "backbone.a": torch.ones(1)}, tmp_path).tensors.keys() == {"a"}


@pytest.mark.parametrize("counters", [True, False])
def test_counters_of_batches_do_not_count(tmp_path, counters):
    original = network()
    stored = {k: v for k, v in original.network.state_dict().items() if counters or "num_batches" not in k}
    match = match_weights(network(seed=1), read_back(stored, tmp_path))
    assert (match.count, match.total, match.missing) == (100, 100, ())
    assert_same_function(loaded(network(seed=1), read_back(stored, tmp_path)), original, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("alexnet", torchvision.models.alexnet),
        ("googlenet", partial(torchvision.models.googlenet, aux_logits=True, init_weights=False)),
        ("resnet18", torchvision.models.resnet18),
        ("resnet50", torchvision.models.resnet50),
        ("densenet121", torchvision.models.densenet121),
        ("mobilenetv3", torchvision.models.mobilenet_v3_large),
    ],
)
def test_weights_of_torchvision_give_the_same_function(name, theirs):
    torch.manual_seed(0)
    theirs = theirs(weights=None).eval()
    for key, value in theirs.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(1e-3, 1.5)  # small enough that an epsilon shows
    weights = Weights("theirs", theirs.state_dict())
    match = match_weights(build_backbone(name), weights)
    assert match.count == match.total
    if name in ("alexnet", "mobilenetv3"):
        theirs.classifier = theirs.classifier[:-1]
    elif name == "densenet121":
        theirs.classifier = nn.Identity()
    else:
        theirs.fc = nn.Identity()
    assert_same_function(loaded(network(name, seed=1), weights), theirs, torch.randn(2, 3, 64, 64))


def test_densenet_by_the_names_it_once_had():
    original = network("densenet121")
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): value
        for name, value in original.network.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert_same_function(
        loaded(network("densenet121", seed=1), Weights("old", old)), original, torch.randn(2, 3, 32, 32)
    )


def test_colour_is_summed_for_gray():
    colour = network()
    gray = loaded(network(channels=1, seed=1), Weights("w", colour.network.state_dict()))
    image = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(gray(image), colour(image.expand(-1, 3, -1, -1)))


# What is refused


def test_less_than_nine_tenths_is_another_network():
    state = network().network.state_dict()
    names = [name for name in state if "num_batches" not in name]
    for kept, fits in ((90, True), (89, False)):
        weights = Weights("w.pth", {name: state[name] for name in names[:kept]})
        if fits:
            assert match_weights(network(), weights).count == kept
            continue
        with pytest.raises(InputError) as caught:
            match_weights(network(), weights)
        expected = (
            f"w.pth are not those of this backbone (timm resnet18): 89 of 100 tensors match; it wants {names[89]}, "
        )
        assert expected in str(caught.value)


def test_a_refusal_names_what_differs_on_both_sides():
    weights = Weights("ir50.pth", {"input_layer.0.weight": torch.zeros(64, 3, 3, 3), "bn1.weight": torch.zeros(32)})
    with pytest.raises(InputError) as caught:
        match_weights(network(), weights)
    text = str(caught.value)
    assert "0 of 100 tensors match; it wants conv1.weight, bn1.weight (32,) for (64,), bn1.bias and 97 more" in text
    assert text.endswith("they hold input_layer.0.weight")


@pytest.mark.parametrize(
    ("theirs", "backbone", "message"),
    [
        (torchvision.models.resnet18, "resnet50", "it wants layer1.0.conv1.weight (64, 64, 3, 3) for (64, 64, 1, 1)"),
        (torchvision.models.resnet50, "seresnet50", "265 of 329 tensors match; it wants layer1.0.se.fc1.weight"),
        (
            torchvision.models.resnet34,
            "resnet18",
            "100 of 100 tensors match; it wants nothing else, they hold layer1.2.",
        ),
        (
            torchvision.models.resnet101,
            "resnet50",
            "265 of 265 tensors match; it wants nothing else, they hold layer3.6.",
        ),
    ],
)
def test_weights_of_another_network_are_refused(theirs, backbone, message):
    with pytest.raises(InputError, match="are not those of this backbone") as caught:
        match_weights(build_backbone(backbone), Weights("w", theirs(weights=None).state_dict()))
    assert message in str(caught.value)


def test_a_network_with_more_in_its_blocks_is_another():
    weights = Weights("w", network("seresnet50").network.state_dict())
    with pytest.raises(InputError, match=r"they hold layer1\.0\.se\.fc1\.weight"):
        match_weights(build_backbone("resnet50"), weights)


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


def test_numbers_that_are_not_finite(tmp_path):
    state = network().network.state_dict()
    state["bn1.bias"][3] = float("nan")
    with pytest.raises(InputError, match=r"are not all finite numbers: bn1\.bias"):
        match_weights(network(seed=1), Weights("w", state))


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


def test_names_of_a_file_cannot_spoil_the_line():
    name = "\x1b[2J\n" + 1000 * "x"
    with pytest.raises(InputError) as caught:
        match_weights(network(), Weights("w", {name: torch.zeros(1)}))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(InputError, match="no weights file"):
        read_weights(tmp_path / "none.pth")
    for stored in ({}, [1], {"state_dict": {"a": 1}}):
        with pytest.raises(InputError, match="hold no tensors by name"):
            read_back(stored, tmp_path)


# Pickles of numpy arrays and the networks of VGGFace2


def python_2_pickle(arrays):
    """The bytes that Python 2 writes for a dict of float32 arrays, as in VGGFace2's files: bytes are plain strings."""

    def text(value):
        return b"T" + len(value).to_bytes(4, "little") + value

    parts = [b"\x80\x02}("]
    for name, array in arrays.items():
        shape = b"(" + b"".join(b"J" + side.to_bytes(4, "little") for side in array.shape) + b"t"
        parts += [
            text(name.encode()),
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR(K\x01",
            shape,
            b"cnumpy\ndtype\n("
            + text(b"f4")
            + b"K\x00K\x01tR(K\x03"
            + text(b"<")
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
            text(array.astype("<f4").tobytes()),
            b"tb",
        ]
    return b"".join((*parts, b"u."))


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


STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width and blocks of ResNet-50 and SENet-50


def caffe_weights(squeezed, seed=0):
    """Random tensors under the names of VGGFace2's files."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def conv(name, out, into, side, bias=False):
        state[f"{name}.weight"] = torch.randn(out, into, side, side, generator=generator) * (into * side * side) ** -0.5
        if bias:
            state[f"{name}.bias"] = torch.randn(out, generator=generator)

    def norm(name, width):
        for part, low, high in (
            ("weight", 0.5, 1),
            ("bias", -1, 1),
            ("running_mean", -1, 1),
            ("running_var", 0.5, 1.5),
        ):
            state[f"{name}.{part}"] = torch.rand(width, generator=generator) * (high - low) + low

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    into = 64
    for stage, (width, blocks) in enumerate(STAGES, 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            for part, (out, of, side) in enumerate(((width, into, 1), (width, width, 3), (4 * width, width, 1)), 1):
                conv(f"{name}.conv{part}", out, of, side)
                norm(f"{name}.bn{part}", out)
            if squeezed:
                conv(f"{name}.conv4", width // 4, 4 * width, 1, bias=True)
                conv(f"{name}.conv5", 4 * width, width // 4, 1, bias=True)
            if block == 0:
                conv(f"{name}.downsample.0", 4 * width, into, 1)
                norm(f"{name}.downsample.1", 4 * width)
            into = 4 * width
    state["fc.weight"], state["fc.bias"] = torch.zeros(5, into), torch.zeros(5)
    return state


def caffe_features(state, images):
    """Caffe's ResNet-50, or SENet-50 where there are weights for it: RGB uint8 (n, 3, h, w) -> (n, 2048)."""

    def conv(name, x, **keywords):
        return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **keywords)

    def norm(name, x):
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    x = images.float()[:, [2, 1, 0]] - torch.tensor([91.4953, 103.8827, 131.0912]).view(3, 1, 1)
    x = F.max_pool2d(norm("bn1", conv("conv1", x, stride=2, padding=3)).relu(), 3, 2, padding=0, ceil_mode=True)
    for stage, (_, blocks) in enumerate(STAGES, 1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(f"{name}.bn1", conv(f"{name}.conv1", x, stride=stride)).relu()
            y = norm(f"{name}.bn2", conv(f"{name}.conv2", y, padding=1)).relu()
            y = norm(f"{name}.bn3", conv(f"{name}.conv3", y))
            if f"{name}.conv4.weight" in state:
                squeezed = conv(f"{name}.conv4", y.mean((2, 3), keepdim=True)).relu()
                y = y * conv(f"{name}.conv5", squeezed).sigmoid()
            if block == 0:
                x = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, stride=stride))
            x = (x + y).relu()
    return x.mean((2, 3))


@pytest.mark.parametrize("name", ["resnet50", "seresnet50"])
def test_a_file_of_vggface2_is_the_function_it_was_trained_as(tmp_path, name):
    state = caffe_weights(squeezed=name == "seresnet50")
    path = tmp_path / f"{name}_ft_weight.pkl"
    path.write_bytes(python_2_pickle({key: value.numpy() for key, value in state.items()}))
    weights = read_weights(path)
    colour = torch.randint(0, 256, (2, 3, 70, 70), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    for images, augment in (
        (colour, AugmentConfig(size=70, channels=3, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))),
        (colour[:, :1], AugmentConfig(size=70, channels=1, mean=0.3, deviation=0.2)),
    ):
        backbone = build_backbone(name, augment.channels, caffe=CaffeInput(augment))
        assert match_weights(backbone, weights).missing == ()
        with torch.inference_mode():
            expected = caffe_features(state, images.expand(-1, 3, -1, -1))
            features = loaded(backbone, weights)(Normalise(augment)(images))
            standard = loaded(build_backbone(name), weights)(Normalise(augment)(images).expand(-1, 3, -1, -1))
        torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        assert (
            standard - expected
        ).abs().mean() > 0.05 * expected.abs().mean()  # without the geometry: another function


def test_the_geometry_is_that_of_two_backbones():
    assert [name for name, info in BACKBONES.items() if info.caffe] == ["resnet50", "seresnet50"]
    for name, stem in (("resnet18", "standard"), ("resnet50", "small")):
        message = f"'caffe' with stem {stem} does not exist for {name}; with standard for resnet50, seresnet50"
        with pytest.raises(InputError, match=message):
            build_backbone(name, 3, stem=stem, caffe=CaffeInput(AugmentConfig()))


# Encoders


def encoder(seed, **keywords):
    return Encoder(network("resnet18", seed=seed), "single", ModelConfig(**keywords), 3).eval()


def test_an_earlier_run_brings_layer_and_head_where_they_fit(tmp_path):
    first = encoder(0, nodes=16)
    named = {f"encoder.{name}": value for name, value in first.state_dict().items()}
    about = {"config": {"model": {"geometry": "standard"}}, "classes": ["a"]}
    save_checkpoint(tmp_path, {**named, "classifier.weight": torch.zeros(9, 16)}, about)
    weights = read_weights(tmp_path)
    assert weights.source == read_weights(tmp_path / "checkpoint.safetensors").source
    second = encoder(1, nodes=16)
    line = load_encoder(second, weights)
    assert line.startswith(f"weights {tmp_path / 'checkpoint.safetensors'}: 100 of 100 tensors matched")
    assert line.endswith(", and 2 of layer and head; the classifier starts anew")
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(second(images).features, first(images).features)
    third = encoder(1, nodes=8)
    assert load_encoder(third, weights).endswith("100 of 100 tensors matched; the classifier starts anew")
    with torch.inference_mode():
        torch.testing.assert_close(third.backbone(images), first.backbone(images))


def test_the_line_names_what_was_not_found(tmp_path):
    stored = {name: value for name, value in network().network.state_dict().items() if name != "bn1.bias"}
    stored["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    save_file(stored, tmp_path / "w.safetensors")
    line = load_encoder(encoder(1), read_weights(tmp_path / "w.safetensors"))
    assert line.endswith("98 of 100 tensors matched, without conv1.weight (64, 3, 3, 3) for (64, 3, 7, 7), bn1.bias")
