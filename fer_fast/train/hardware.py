"""The device of a run, its precision and its memory format."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from fer_fast.errors import InputError
from fer_fast.train.config import HardwareConfig
from fer_fast.train.processes import ALONE, Processes

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Hardware:
    """Resolved `HardwareConfig`: places modules and images, and gives the autocast context.

    Of several processes on a machine with GPUs each takes the one of its number.

    Raises:
        InputError: a device that is not there, or float16 where gradients cannot be scaled.
    """

    def __init__(self, config: HardwareConfig, processes: Processes = ALONE):
        self.device = _device(config.device if processes.count == 1 else _of_process(config.device, processes))
        if config.precision == "float16" and self.device.type != "cuda":
            raise InputError(f"hardware.precision float16 needs a CUDA device, not {self.device}; allowed: bfloat16")
        self.precision = config.precision
        if config.precision == "auto":
            self.precision = "bfloat16" if _computes_in_bfloat16(self.device) else "float32"
        self.dtype = _AUTOCAST.get(self.precision)
        self.scales_gradients = config.precision == "float16"
        self.memory_format = torch.channels_last if config.channels_last else torch.contiguous_format

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module to the device and the memory format."""
        return module.to(self.device).to(memory_format=self.memory_format)

    def layout(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w) in the memory format."""
        return images.contiguous(memory_format=self.memory_format)

    @contextmanager
    def side_stream(self) -> Iterator[None]:
        """A stream of its own for the work inside, where there are streams: the default one cannot be captured."""
        if self.device.type != "cuda":
            yield
            return
        outer, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        side.wait_stream(outer)
        with torch.cuda.stream(side):
            yield
        outer.wait_stream(side)

    def autocast(self) -> AbstractContextManager:
        """The context in which the network runs."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)


def _of_process(name: str, processes: Processes) -> str:
    """The device of one of several processes."""
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    if kind not in ("cpu", "cuda"):
        raise InputError(f"hardware.device is {name}; several processes take cpu, or cuda: each the GPU of its number")
    if kind == "cpu":
        return kind
    if processes.local >= (count := torch.cuda.device_count()):
        raise InputError(f"process {processes.rank} has no GPU: this machine has {count}; start as many processes")
    torch.cuda.set_device(processes.local)
    return f"cuda:{processes.local}"


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or ["unknown"])[0]
        raise InputError(f"hardware.device {name!r} cannot be used: {reason}") from None
    return device


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it; where it is emulated it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
