"""Ad-Corre's two sweeps, launched."""

import torch
import triton
from torch import Tensor

from ..host.chips import launch_options
from ..host.launch import MOST_PROGRAMS, arrival_counters, cdiv, gradient_dtype, max_programs, rows_of
from .rows import ad_corre_rows
from .settings import EMBEDDING_TILES, MOST_CLASS_ELEMENTS, MOST_CLASSES, MOST_EMBEDDINGS
from .slabs import BLOCK_ROWS, FAN_IN
from .tables import ad_corre_tables

_empty = torch.empty


def ad_corre(
    e: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    num_classes: int,
    fd: float,
    md: float,
    ed: float,
    mean: bool,
    gradient: bool,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """fd·FD + md·MD + ed·ED of e (k, n, d), y (n,), class_difficulty w (C,): the loss and de. A weight 0 is a term off.

    Two launches (one for ED alone). `class_difficulty` None is NFD's 0.5 everywhere. A label outside [0, C) makes the
    loss NaN and goes to `status` (1,); ED alone reads no label.
    """
    k, n, d = e.shape
    classes, width = max(16, triton.next_power_of_2(num_classes)), max(16, triton.next_power_of_2(d))
    if (
        (e.element_size(), width) not in EMBEDDING_TILES
        or classes > MOST_CLASSES
        or classes * width > MOST_CLASS_ELEMENTS
        or k > MOST_EMBEDDINGS
    ):
        raise NotImplementedError("too many classes or embeddings for one program, rows too wide for it, or float64")
    config = EMBEDDING_TILES[e.element_size(), width]
    e, y = rows_of(e), y.contiguous()
    ed = 0.0 if k == 1 else ed  # a single embedding has no pair
    new = {"dtype": torch.float32, "device": e.device}
    terms = {"FD": fd != 0, "MD": md != 0}
    shape = {"D": d, "K": classes}
    losses, tables, loss = _empty((k,), **new), _empty((k, 2, classes, d), **new), _empty((), **new)
    moments = _empty((n, k, 2), **new)
    de = _empty((k, n, d), dtype=gradient_dtype(e), device=e.device) if gradient else None
    if fd or md:
        programs = min(cdiv(n, config.block_n), cdiv(max_programs(e.device), k))
        blocks = programs + cdiv(programs, FAN_IN.value)
        fd_scale = 0.0 if n == 1 else fd / (k * n**2) if mean else fd  # a single row has no pair
        ad_corre_tables[(programs, k)](
            e, y, class_difficulty if fd else None, status, losses, tables, moments,
            _empty((k, 2, blocks, classes, d), **new), _empty((k, blocks, BLOCK_ROWS.value, classes), **new),
            arrival_counters(e.device), n, num_classes, e.stride(0), e.stride(1),
            fd_scale, md / (k * num_classes**2) if mean else md,
            BLOCK_N=config.block_n, BLOCK_D=config.block_d, CHUNKS=width // config.block_d, **shape, **terms,
            TENSOR_CORES=torch.version.hip is None, **launch_options(config.num_warps, config.num_stages),
        )  # fmt: skip
    # Without a gradient and without ED no row is left to visit: the second launch only adds the losses up.
    rows = n if gradient or ed else 0
    programs = max(1, min(cdiv(rows, config.row_block_n), max_programs(e.device), MOST_PROGRAMS))
    ad_corre_rows[(programs,)](
        e, y, losses, tables, moments, de, _empty((programs,), **new), arrival_counters(e.device), loss,
        rows, num_classes, e.stride(0), e.stride(1), ed / (n * k**2) if mean else ed,
        EMBEDDINGS=k, BLOCK_N=config.row_block_n, BLOCK_D=width, PROGRAMS=MOST_PROGRAMS, **shape, **terms, ED=ed != 0,
        **launch_options(config.row_warps),
    )  # fmt: skip
    return loss, de if gradient else _empty((0,), dtype=gradient_dtype(e), device=e.device)
