"""What the launchers of the class-table and Ad-Corre engines share on the host."""

from typing import Any

import torch
import triton
from torch import Tensor

# Before 3.9 Triton may refuse a float32 product over fewer than 16 rows.
LEAST_ROWS = 8 if tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 9) else 16

_MOST_COUNTERS = 4096
_counters: dict[tuple[torch.device, int], Tensor] = {}


def arrival_counters(device: torch.device) -> Tensor:
    """Zeros that every launch leaves as zeros: one set for each stream, since launches on one stream never overlap."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        # Memory of a captured allocation belongs to the graph, which zeroes it at every replay: not to be kept.
        return torch.zeros(_MOST_COUNTERS, dtype=torch.int32, device=device)
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    if (device, stream) not in _counters:
        _counters[device, stream] = torch.zeros(_MOST_COUNTERS, dtype=torch.int32, device=device)
    return _counters[device, stream]


def max_programs(device: torch.device) -> int:
    """Programs that stay resident, two on each multiprocessor; a handful in the interpreter."""
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def product_precision(x: Tensor) -> tuple[str, bool]:
    """How float32 products are taken, as PyTorch's own setting says, and whether TF32 units are there."""
    tensor_cores = torch.version.hip is None
    return "tf32" if tensor_cores and torch.backends.cuda.matmul.allow_tf32 else "ieee", tensor_cores


def gradient_dtype(x: Tensor) -> torch.dtype:
    """The dtype a gradient waits in for the backward: float16 would lose it before the loss scale comes."""
    return torch.float32 if x.dtype == torch.float16 else x.dtype


def rows_of(x: Tensor) -> Tensor:
    """`x` with neighbouring columns. Rows may lie anywhere, also on top of each other."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def type_of(value: object) -> object:
    """A kernel argument's type as ahead-of-time compilation names it: numbers are fp32, tuples keep their class."""
    if isinstance(value, tuple):
        types = [type_of(v) for v in value]
        return type(value)(*types) if hasattr(value, "_fields") else tuple(types)
    return "fp32"


def aot_case(name: str, kernel: Any, types: dict[str, Any], constexprs: dict[str, Any], num_warps: int) -> tuple:
    """(name, kernel, signature, constexprs, attrs, num_warps, num_stages) for the audit.

    `types` by argument name, None for a pointer left out. Pointers and widths are taken as divisible by 16.
    """
    constexprs = constexprs | {a: None for a in kernel.arg_names if a in types and types[a] is None}
    signature = {a: "constexpr" if a in constexprs else types[a] for a in kernel.arg_names}
    attrs = {
        (place,): [["tt.divisibility", 16]]
        for place, (argument, given) in enumerate(signature.items())
        if isinstance(given, str) and given != "constexpr"
        if given.startswith("*") or argument == "d" or argument.endswith("stride")
    }
    return name, kernel, signature, constexprs, attrs, num_warps, 1
