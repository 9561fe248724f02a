"""Checkpoints that survive a kill at any moment: one file holds everything and replaces its predecessor at once."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fer_fast.errors import InputError

CHECKPOINT = "checkpoint.safetensors"
FORMAT = "fer-fast 1"


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write checkpoint.safetensors, checkpoint.json and log.jsonl.

    The state, with its "history" of epochs, travels inside the safetensors file, so tensors and state are one atomic
    replacement and cannot disagree; the other files are copies for people and scripts, written after it.

    Raises:
        InputError: the file cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    _write(folder / CHECKPOINT, save(plain, metadata={"format": FORMAT, "state": json.dumps(state)}))
    write_copies(folder, state)


def write_copies(folder: Path, state: dict[str, Any]) -> None:
    """Write what a checkpoint's state holds a second time: checkpoint.json, and its history as log.jsonl."""
    write_text(folder / "checkpoint.json", json.dumps(state, indent=1) + "\n")
    write_text(folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in state["history"]))


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and the state, of a checkpoint file or of the folder that holds one.

    Raises:
        InputError: no such file, a corrupt one, or one that fer-fast did not write.
    """
    return _read(path, tensors=True)


def read_state(path: str | Path) -> dict[str, Any]:
    """The state alone; the same errors as `load_checkpoint`."""
    return _read(path, tensors=False)[1]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file or a state dict of torch.save, possibly under "state_dict".

    Nothing in the file is executed.

    Raises:
        InputError: unreadable, or not a mapping of names to tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no weights file at {path}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in list(file.keys())}
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"cannot read the weights {path}: {reason[0]}") from None
    stored = stored.get("state_dict", stored) if isinstance(stored, dict) else {}
    tensors = {name: value for name, value in stored.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"the weights {path} hold no tensors by name")
    return tensors


def write_text(path: Path, text: str) -> None:
    """Replace a text file at once; a kill leaves the old one or the new one.

    Raises:
        InputError: the file cannot be written.
    """
    _write(path, text.encode())


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under names that begin with "prefix."."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with "prefix.", without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def restore(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load a module's whole state.

    Raises:
        InputError: a tensor is missing, too many or of another shape.
    """
    try:
        module.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{where} does not fit the model: {' '.join(str(error).split())[:300]}") from None


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as tensors named "parameter index.name"."""
    states = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": value
        for index, state in states.items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The reverse of `optimiser_tensors`; groups and rates come from the configuration."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        states.setdefault(int(index), {})[name] = _laid_out_like(parameters[int(index)], value)
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """State in its parameter's memory format: fused optimisers read it in that order, whatever its strides."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def _read(path: str | Path, *, tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = Path(path)
    path = path / CHECKPOINT if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path} is not a checkpoint of fer-fast (format {metadata.get('format')!r})")
            names = list(file.keys()) if tensors else []
            return {name: file.get_tensor(name) for name in names}, json.loads(metadata["state"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"the checkpoint {path} is corrupt or unreadable: {error}") from None


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}") from None
