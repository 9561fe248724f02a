"""Matrix products of half-precision operands, with a sum in float32, by the BLAS."""

from functools import cache

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor, out: Tensor, add: bool = False) -> None:
    """out = a b, or out += a b, rounded once, to the dtype of `out`: that of a and b, or float32."""
    if out.dtype == a.dtype:
        torch.addmm(out, a, b, out=out) if add else torch.mm(a, b, out=out)
    elif _widens(a.device, a.dtype):
        if add:
            torch.addmm(out, a, b, out_dtype=out.dtype, out=out)
        else:
            torch.mm(a, b, out_dtype=out.dtype, out=out)
    else:
        product(a.to(out.dtype), b.to(out.dtype), out, add)


@cache
def _widens(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of this dtype can be added in float32 here: on an NVIDIA GPU, on no CPU."""
    try:
        a, out = (torch.zeros(16, 16, dtype=of, device=device) for of in (dtype, torch.float32))
        torch.addmm(out, a, a, out_dtype=out.dtype, out=out)
    except RuntimeError:  # NotImplementedError among them
        return False
    return True
