"""What a run keeps: slim weights for use, and apart from them the state to resume from.

Each file replaces its predecessor at once and is whole in itself: tensors and state travel in one safetensors file. The
state is written first: after a kill between the two the weights may be an epoch older, and a resumed run writes both.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fer_fast.errors import InputError
from fer_fast.written import check_free, write_bytes, write_text

CHECKPOINT = "checkpoint.safetensors"
RESUME = "resume.safetensors"
# The first is written, all are read. In version 1 one file held all of a run, and its state names the weights in it.
FORMATS = {CHECKPOINT: ("fer-fast weights 2", "fer-fast 1"), RESUME: ("fer-fast resume 2",)}


def save_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write checkpoint.safetensors, the weights of one recogniser and what is needed to use them, and checkpoint.json.

    The second file is a copy of the state for people and scripts.

    Args:
        path: the folder, or the first file by any name that ends in .safetensors; the second then has its name.
        tensors, state: what `load_checkpoint` gives again.

    Raises:
        InputError: a file cannot be written.
    """
    path = checkpoint_file(path)
    _save(path, CHECKPOINT, tensors, state)
    write_text(path.with_suffix(".json"), json.dumps(state, indent=1) + "\n")


def checkpoint_file(path: Path) -> Path:
    """The file that a path to a checkpoint means: itself where it ends in .safetensors, else one in that folder."""
    return path if path.suffix == ".safetensors" and not path.is_dir() else path / CHECKPOINT


def check_checkpoint_free(path: str | Path, force: bool) -> None:
    """Refuse a checkpoint to write that would replace a file of its two, unless that may go, or cannot be written.

    Raises:
        InputError: see `fer_fast.written.check_free`.
    """
    for suffix in (".safetensors", ".json"):
        check_free(checkpoint_file(Path(path)).with_suffix(suffix), force)


def save_resume(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write resume.safetensors, everything that a resumed run needs, and a copy of its "history" as log.jsonl.

    Raises:
        InputError: a file cannot be written.
    """
    _save(folder / RESUME, RESUME, tensors, state)
    write_log(folder, state)


def write_log(folder: Path, state: dict[str, Any]) -> None:
    """Write the history of a run's state as log.jsonl, a line an epoch."""
    write_text(folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in state["history"]))


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and the state, of checkpoint.safetensors or of the folder that holds it.

    Raises:
        InputError: no such file, a corrupt one, or one that fer-fast did not write.
    """
    path = Path(path)
    tensors, state = _read(path / CHECKPOINT if path.is_dir() else path, CHECKPOINT)
    return below(state["weights"], tensors) if "weights" in state else tensors, state


def load_resume(folder: Path, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name (none where they are not wanted), and the state, of the resume.safetensors of a run's folder.

    Raises:
        InputError: no such file, a corrupt one, or a run of which only the weights are left.
    """
    if not (folder / RESUME).exists() and (folder / CHECKPOINT).is_file():
        raise InputError(
            f"nothing to resume: {folder} holds weights but no {RESUME}; "
            f"--model.weights {folder / CHECKPOINT} starts another run from them"
        )
    return _read(folder / RESUME, RESUME, tensors=tensors)


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        InputError: it cannot be read, or holds none.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged: it holds no mapping")
    return values


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


def _save(path: Path, kind: str, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata={"format": FORMATS[kind][0], "state": json.dumps(state)}))


def _read(path: Path, kind: str, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in FORMATS[kind]:
                raise InputError(_wrong_format(path, metadata.get("format")))
            names = list(file.keys()) if tensors else []
            return {name: file.get_tensor(name) for name in names}, json.loads(metadata["state"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"the checkpoint {path} is corrupt or unreadable: {error}") from None


def _wrong_format(path: Path, found: str | None) -> str:
    if found in FORMATS[RESUME]:
        return f"{path} is the state to resume from; the weights are in {path.with_name(CHECKPOINT)}"
    return f"{path} is not a checkpoint of fer-fast (format {found!r})"
