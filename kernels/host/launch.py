"""What the launchers share on the host: dtypes, precision, layout, and how a launch fills a chip."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fer_fast.terms import Share

from ..common.pair_tiles import TABLE_ROWS

_TENSOR_CORES = torch.version.hip is None  # of TF32
_matmul = torch.backends.cuda.matmul


class Launch(NamedTuple):
    """A kernel, its grid and arguments, and its constants and options by name: as the launcher starts it, and as it is
    compiled ahead of time.

    `compiled` is where a plan keeps what Triton made of launches alike in all that it looks at, which are then started
    without looking again: that takes longer than the rest of a launch.
    """

    kernel: Any
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]
    constants: Mapping[str, Any]
    compiled: dict[str, tuple[Any, tuple]] | None = None


def start(launch: Launch) -> None:
    """Runs a kernel on the current stream; of a grid without programs nothing."""
    kernel, grid, arguments, constants, compiled = launch
    name = kernel.__name__
    if compiled and name in compiled:
        made, behind, last, run = compiled[name]
        if last != grid:
            run = made[grid]
            compiled[name] = made, behind, grid, run
        run(*arguments, *behind)
        return
    made = kernel[grid](*arguments, **constants)
    if compiled is not None and made is not None:  # which it is in the interpreter
        behind = tuple(constants[name] for name in kernel.arg_names[len(arguments) :])
        compiled[name] = made, behind, grid, made[grid]


def recall(kind: dict | None, asked: tuple, make: Callable[[], Any]) -> Any:
    """What a kind of call remembers by `asked`, made where it does not; always made where no kind is known."""
    if kind is None:
        return make()
    found = kind.get(asked)
    if found is None:
        found = kind[asked] = make()
    return found


def cdiv(a: int, b: int) -> int:
    """⌈a / b⌉ on the host; Triton's own, which also serves kernels, takes microseconds a call."""
    return -(-a // b)


@cache
def processors(device: torch.device) -> int:
    """Programs that run at once, one to a multiprocessor."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def max_programs(device: torch.device) -> int:
    """Programs that stay resident, two on each multiprocessor; a handful in the interpreter."""
    return 2 * processors(device) if device.type == "cuda" else processors(device)


def product_precision() -> tuple[str, bool]:
    """How Triton takes float32 products, and whether there are TF32 units: "tf32" where PyTorch's own setting says so.

    Of its two switches the new one is read, which shows what the old one was set to. Once the new one was set, reading
    the old one raises.
    """
    tf32 = _TENSOR_CORES and _matmul.fp32_precision == "tf32"
    return "tf32" if tf32 else "ieee", _TENSOR_CORES


def product_kind(dtype: torch.dtype) -> str:
    """The kind of matrix product, as tile tables name it."""
    if dtype != torch.float32:
        return "half"
    return "tf32" if product_precision()[0] == "tf32" else "float32"


def gradient_dtype(x: Tensor) -> torch.dtype:
    """The dtype a gradient waits in for the backward: float16 would lose it before the loss scale comes."""
    return torch.float32 if x.dtype == torch.float16 else x.dtype


def rows_of(x: Tensor) -> Tensor:
    """`x` with neighbouring columns. Rows may lie anywhere, also on top of each other."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


@cache
def pick_splits(tiles: int, key_tiles: int, slots: int) -> int:
    """Into how many parts the keys are split so that few tiles of anchors still fill the `slots`, programs at once.

    The fewest parts that leave the smallest share of the last wave of programs idle: of a single wave the most that
    fit, else at most four.
    """
    fitting = slots // max(tiles, 1)
    if fitting >= 4:
        return max(1, min(key_tiles, fitting))
    return min(range(1, max(1, min(key_tiles, 4)) + 1), key=lambda parts: (cdiv(tiles * parts, slots) / parts, parts))


def own_first(share: Share, *columns: Tensor | None) -> list[Tensor | None]:
    """Columns (N, ...) of all processes with the rows of this one first, those behind them next, and so round: what is
    said of the first rows is then of its own, wherever they lie."""
    return [t if t is None else t.roll(-share.own.start, 0) for t in columns]


def dense_rows(x: Tensor) -> Tensor:
    """`x` with neighbouring columns and rows any near distance apart, also 0: offsets within a tile are of 32 bits."""
    return rows_of(x) if x.stride(-2) < 2**23 else x.contiguous()


def columns_first(x: Tensor, chunk: int, tile: int) -> Tensor:
    """`x` (n, d) as blocks (n / 32, d, 32) of rows in float32, for :func:`squared_distances`.

    Zeros fill the last chunk of columns, and `tile` rows past the last.
    """
    (n, d), rows = x.shape, TABLE_ROWS.value
    table = torch.zeros((cdiv(n + tile, rows), cdiv(d, chunk) * chunk, rows), dtype=torch.float32, device=x.device)
    whole = n // rows
    table[:whole, :d] = x[: whole * rows].unflatten(0, (whole, rows)).mT
    table[whole, :d, : n - whole * rows] = x[whole * rows :].mT
    return table
