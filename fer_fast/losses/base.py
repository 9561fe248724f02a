"""What every loss module shares: its row in the registry, its reduction, its backend, and integers in its state."""

import torch
from torch import Tensor, nn

from .. import checks
from ..dispatch import BACKENDS
from ..suggest import one_of


class Loss(nn.Module):
    """Base of all losses. `name` is the loss's row in the registry."""

    name: str

    def __init__(self, *, reduction: str = "mean", backend: str = "auto"):
        super().__init__()
        self.reduction = checks.reduction(reduction)
        self.backend = one_of(backend, BACKENDS, "backend")

    @property
    def common(self) -> dict[str, str]:
        """The keywords every function of :mod:`fer_fast.functional` takes."""
        return {"reduction": self.reduction, "backend": self.backend}

    def extra_repr(self) -> str:
        shown = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items())


class HostState(nn.Module):
    """A module some of whose state is plain integers on the host, kept in `state_dict` as one int64 tensor.

    Integers on the host steer slices and schedules without asking the device; as a tensor they travel through
    safetensors like everything else. Subclasses give `host_state` and take it back.
    """

    @property
    def host_state(self) -> list[int]:
        raise NotImplementedError

    @host_state.setter
    def host_state(self, values: list[int]) -> None:
        raise NotImplementedError

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "host_state"] = torch.tensor(self.host_state, dtype=torch.int64)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        values: Tensor | None = state_dict.get(prefix + "host_state")
        rest = {key: value for key, value in state_dict.items() if key != prefix + "host_state"}
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing, unexpected, errors)
        if values is not None:
            self.host_state = values.tolist()
        elif strict:
            missing.append(prefix + "host_state")
