"""What is found of rows before their pairs are visited: labels of 32 bits, and a bound on every logit.

    |s_ij| <= b = scale · max_i ‖z_i‖ · max_j ‖k_j‖    over anchors z and keys k

With such a bound no running maximum is needed, and with labels of 32 bits a comparison is one instruction. b is inf
where that cannot be had: a row is not finite or very long, a label does not fit, or a row of the bank is not filled. A
launch of its own, which reads each row once and writes 4 bytes a label; labels given in int32 are used where they lie.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import TYPES, aot_case, mark
from .configs import MOST_PROGRAMS, SURVEY_ROWS
from .launch import arrival_counters, cdiv, max_programs
from .pair_tiles import load_rows
from .tiles import arrive_last

LONGEST = tl.constexpr(2.0**80)  # squared: weights of up to 2^60 times the rows of a large bank stay finite
MARGIN = tl.constexpr(1.002)  # TF32 rounds the factors of a product by up to 2⁻¹¹ each


@triton.jit
def _largest(
    rows_ptr, y, labels, count, d, stride, BANK: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """The largest squared length in a program's share of rows; inf for a row that is not finite or very long, whose
    label is long, or of the bank and not filled."""
    largest = tl.zeros((BLOCK,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(count, BLOCK), tl.num_programs(0)):
        rows = tile * BLOCK + tl.arange(0, BLOCK)
        valid = rows < count
        squared = tl.zeros((BLOCK,), tl.float32)
        if rows_ptr is not None:
            for start in range(0, d, BLOCK_D):
                row = load_rows(rows_ptr, tile * BLOCK, valid, stride, start + tl.arange(0, BLOCK_D), d)
                squared += tl.sum(row.to(tl.float32) * row.to(tl.float32), 1)
        if y is not None:
            label = tl.load(y + rows, mask=valid, other=0)
            if BANK:
                squared = tl.where(label < 0, float("inf"), squared)
            if labels is not None:
                tl.store(labels + rows, label.to(tl.int32), mask=valid)
                squared = tl.where(label.to(tl.int32) == label, squared, float("inf"))
        largest = tl.maximum(largest, tl.where(squared < LONGEST, squared, float("inf")))  # NaN is not below
    return tl.max(largest)


@triton.jit(do_not_specialize=["n", "m"])
def _survey(
    z, y, labels, bank_z, bank_y, bank_labels, partial, counter, bound, n, m, scale, d, z_stride, bank_stride,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """The bound (1,) from partial maxima (2, programs), and labels (n,), bank_labels (m,) in int32."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    tl.store(partial + program, _largest(z, y, labels, n, d, z_stride, False, BLOCK, BLOCK_D))
    if bank_y is not None:
        largest = _largest(bank_z, bank_y, bank_labels, m, d, bank_stride, True, BLOCK, BLOCK_D)
        tl.store(partial + programs + program, largest)
    if arrive_last(counter, programs):
        slots = tl.arange(0, PROGRAMS)
        anchor = tl.max(tl.load(partial + slots, mask=slots < programs, other=0.0, cache_modifier=".cg"))
        key = anchor
        if bank_y is not None:
            bank = tl.load(partial + programs + slots, mask=slots < programs, other=0.0, cache_modifier=".cg")
            key = tl.maximum(key, tl.max(bank))
        if z is not None:
            anchor = scale * MARGIN * tl.sqrt(anchor) * tl.sqrt(key)
        tl.store(bound, anchor)


_empty = torch.empty


def survey(
    z: Tensor | None, y: Tensor | None, bank_z: Tensor | None = None, bank_y: Tensor | None = None, scale: float = 1.0
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """labels (n,) and bank_labels (M,) in int32, and the bound () on logits scale · z·k of z (n, d) and bank_z (M, d).

    What is None is left out; without z the bound says only, as 0 or inf, whether all labels fit.
    """
    given = z if y is None else y
    labels, bank_labels = (t if t is None or t.dtype == torch.int32 else _like(t) for t in (y, bank_y))
    bound = _empty((), dtype=torch.float32, device=given.device)
    d = 1 if z is None else z.shape[1]
    n, m = len(given), 0 if bank_y is None else len(bank_y)
    programs = min(cdiv(max(n, m), SURVEY_ROWS.block_m), max_programs(given.device), MOST_PROGRAMS)
    _survey[programs,](
        z, y, None if labels is y else labels, bank_z, bank_y, None if bank_labels is bank_y else bank_labels,
        _empty((2, programs), dtype=torch.float32, device=given.device), arrival_counters(given.device), bound,
        n, m, scale, d, 1 if z is None else z.stride(0), 1 if bank_z is None else bank_z.stride(0),
        BLOCK=SURVEY_ROWS.block_m, BLOCK_D=SURVEY_ROWS.block_d, PROGRAMS=MOST_PROGRAMS, **SURVEY_ROWS.options,
    )  # fmt: skip
    return labels, bank_labels, bound


def _like(y: Tensor) -> Tensor:
    return _empty((len(y),), dtype=torch.int32, device=y.device)


def aot_cases() -> list[tuple]:
    """Rows and bank of every dtype with labels to be narrowed, for the audit."""
    types = dict.fromkeys(("n", "m", "d", "z_stride", "bank_stride"), "i32") | {
        "scale": "fp32",
        **dict.fromkeys(("y", "bank_y"), "*i64"),
        **dict.fromkeys(("labels", "bank_labels", "counter"), "*i32"),
        **dict.fromkeys(("partial", "bound"), "*fp32"),
    }
    flags = {"BLOCK": SURVEY_ROWS.block_m, "BLOCK_D": SURVEY_ROWS.block_d, "PROGRAMS": MOST_PROGRAMS}
    return [
        aot_case(
            mark(f"survey-{of}", of == "bf16"),
            _survey,
            types | dict.fromkeys(("z", "bank_z"), f"*{of}"),
            flags,
            SURVEY_ROWS.options,
        )
        for of in TYPES.values()
    ]
