"""Weights to start from: files of other programs and of earlier runs, read without executing anything they hold."""

import hashlib
import math
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from fer_fast.errors import InputError
from fer_fast.train.checkpoint import CHECKPOINT, FORMATS, load_checkpoint

LARGEST = 4 << 30  # bytes of a file; the largest of the nine backbones has a quarter of a gigabyte
CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "ema")  # the first that is there is taken
PREFIXES = ("module.", "_orig_mod.", "encoder.", "backbone.", "model.", "net.", "network.")

_TORCH_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # the number at the head of what torch.save wrote before it wrote zip files
_REFUSED = re.compile(r"GLOBAL:? ([\w.]+)")  # how torch names what it will not look up


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors to start from, by the names their file has for them.

    Attributes:
        source: for people: the file, and what in it was taken.
        tensors: by name, without what the names were wrapped in (`PREFIXES`).
        geometry: "caffe" where they belong to a network of Caffe's (see `ModelConfig.geometry`), else "standard".
        state: of the checkpoint, where a run of fer-fast left them, with layer and head beside the backbone.
        sha256: of the file.
    """

    source: str
    tensors: dict[str, Tensor] = field(repr=False)
    geometry: str = "standard"
    state: dict[str, Any] | None = field(default=None, repr=False)
    sha256: str | None = None


def read_weights(path: str | Path) -> Weights:
    """The weights of a file: .safetensors, torch.save, a pickle of numpy arrays, or a run's checkpoint or folder.

    Raises:
        InputError: no such file, one that is unreadable, too large, unsafe, or holds no tensors by name.
    """
    path = Path(path)
    path = path / CHECKPOINT if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"no weights file at {path}")
    if path.stat().st_size > LARGEST:
        raise InputError(f"the weights {path} are refused: {path.stat().st_size} bytes; allowed: {LARGEST}")
    try:
        with path.open("rb") as file:
            return replace(_reader(path)(path), sha256=hashlib.file_digest(file, "sha256").hexdigest())
    except InputError:
        raise
    except Exception as error:  # hostile bytes lead these readers to any
        text = str(error).split("WeightsUnpickler error:")[-1]  # torch says much before it says what is wrong
        reason = text.strip().splitlines() or [type(error).__name__]
        raise InputError(f"cannot read the weights {path}: {reason[0]}") from None


def _reader(path: Path) -> Callable[[Path], Weights]:
    with path.open("rb") as file:
        head = file.read(512)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors
    if head[257:262] == b"ustar":
        raise InputError(
            f"cannot read the weights {path}: a tar archive, as PyTorch wrote before 2017 or a packed folder is; "
            "unpack it, or load it with that PyTorch and save its state_dict again"
        )
    return _read_torch if head[:2] == b"PK" or _TORCH_MAGIC in head[:32] else _read_numpy


def _read_safetensors(path: Path) -> Weights:
    with safe_open(path, framework="pt") as file:
        own = (file.metadata() or {}).get("format", "") in {name for names in FORMATS.values() for name in names}
        if not own:
            return _named(path, {name: file.get_tensor(name) for name in list(file.keys())})
    tensors, state = load_checkpoint(path)
    encoder = {name: value for name, value in tensors.items() if name.startswith("encoder.")}
    return Weights(str(path), _bare(path, encoder), state["config"]["model"].get("geometry", "standard"), state)


def _read_torch(path: Path) -> Weights:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
        if declared > path.stat().st_size:  # torch.save compresses nothing
            raise InputError(f"cannot read the weights {path}: {declared} bytes packed into {path.stat().st_size}")
    try:
        # Papers' checkpoints hold accuracies as numpy numbers; they are read as nothing.
        with torch.serialization.safe_globals([(_Type, "numpy.dtype"), *_SCALARS]):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if refused := _REFUSED.search(str(error)):
            raise InputError(_unsafe(path, refused[1])) from None
        raise
    return _named(path, stored)


def _read_numpy(path: Path) -> Weights:
    with path.open("rb") as file:
        stored = _NumpyPickle(file).load()
    arrays = stored.items() if isinstance(stored, dict) else ()
    tensors = {name: value.tensor for name, value in arrays if isinstance(value, _Array)}
    return _named(path, tensors, geometry="caffe")


def _named(path: Path, stored: Any, geometry: str = "standard") -> Weights:
    """The weights of what a file holds: the mapping of names to tensors within its containers."""
    inside = []
    while found := [name for name in CONTAINERS if isinstance(stored, dict) and isinstance(stored.get(name), dict)]:
        inside.append(found[0])
        stored = stored[found[0]]
    tensors = {
        name: value
        for name, value in (stored.items() if isinstance(stored, dict) else ())
        if isinstance(name, str) and isinstance(value, Tensor) and _plain(value)
    }
    if not tensors:
        raise InputError(f"the weights {path} hold no tensors by name")
    source = f"{path} ({'.'.join(inside)})" if inside else str(path)
    return Weights(source, _bare(path, tensors), geometry)


def _plain(value: Tensor) -> bool:
    return value.layout == torch.strided and not (value.is_meta or value.is_quantized or value.is_complex())


def _bare(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under names without any of the prefixes."""
    bare: dict[str, Tensor] = {}
    for name, value in tensors.items():
        short = _PREFIXES.sub("", name)
        if short in bare and not torch.equal(bare[short], value):
            raise InputError(
                f"the weights {path} hold {shown(short)} twice, once of them as {shown(name)}; keep one in the file"
            )
        bare[short] = value
    return bare


_PREFIXES = re.compile(f"^({'|'.join(map(re.escape, PREFIXES))})+")


def shown(name: str) -> str:
    """A name that a file holds, as a line can hold it."""
    return ascii(name)[1:-1][:100]


def _unsafe(path: Path, name: str) -> str:
    return f"cannot read the weights {path}: unsafe, it asks for {shown(name)}; save its tensors alone (state_dict)"


class _Type:
    """A numpy dtype as a pickle describes it: its code and its byte order."""

    def __init__(self, code: str, *_: object):
        self.code, self.order = str(code), "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        if not re.fullmatch(r"[fiu][1248]|b1", self.code) or self.order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"it holds an array of type {self.code!r}")
        return np.dtype(self.order + self.code)


class _Array:
    """A numpy array as a pickle describes it; numpy sees its bytes after their number was checked.

    Args:
        spend: called with the bytes of every copy.
    """

    tensor: Tensor

    def __init__(self, spend: Callable[[int], None]):
        self._spend = spend

    def __setstate__(self, state: tuple) -> None:
        _version, shape, kind, by_columns, content = state
        self.fill(content, kind, shape, "F" if by_columns else "C")

    def fill(self, content: bytes | str, kind: _Type, shape: tuple[int, ...], order: str) -> "_Array":
        self._spend(len(content))
        content = content.encode("latin1") if isinstance(content, str) else content
        dtype = kind.numpy()
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content):
            raise pickle.UnpicklingError(f"it holds an array of shape {tuple(shape)} in {len(content)} bytes")
        array = np.frombuffer(content, dtype).reshape(shape, order=order)
        self.tensor = torch.from_numpy(array.astype(dtype.newbyteorder("="), order="C"))
        return self


def _nothing(*_: object) -> None:
    return None


_SCALARS = [(_nothing, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]


class _NumpyPickle(pickle._Unpickler):
    """Reads pickles of numpy arrays and nothing else: no name in one leads to code that is not in this file.

    The one in Python, not the one in C: it allocates what the file holds, not what the file says it holds.
    """

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin1")
        self._path, self._left = Path(file.name), 2 * Path(file.name).stat().st_size  # bytes and their array
        self._given = {
            "numpy.ndarray": _nothing,
            "numpy.dtype": _Type,
            "collections.OrderedDict": dict,
            "_codecs.encode": self._encode,
        }
        for core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
            self._given[f"{core}.multiarray._reconstruct"] = lambda *_: _Array(self._spend)
            self._given[f"{core}.numeric._frombuffer"] = lambda *buffer: _Array(self._spend).fill(*buffer)
            self._given[f"{core}.multiarray.scalar"] = _nothing

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._given:
            raise InputError(_unsafe(self._path, full))
        return self._given[full]

    def _encode(self, text: str, _encoding: str) -> bytes:
        self._spend(len(text))
        return text.encode("latin1")

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise pickle.UnpicklingError("its arrays are larger than the file")
