"""The yardsticks: bytes a second of a large copy, operations a second of a large product in each precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from ..measure import Gauge
from .step import Asked, Case, Result, main

PRECISIONS = {"bfloat16": "bfloat16", "float16": "float16", "tf32": "float32", "float32": "float32"}  # operands of each


@dataclass
class Rate(Result):
    """The best of a few trials."""

    precision: str
    copy_rate: float
    matrix_rate: float


def cases(asked: Asked) -> Iterator[Case]:
    for precision in PRECISIONS:
        yield precision, partial(measure, precision, asked)


def measure(precision: str, asked: Asked) -> Iterator[Rate]:
    """Copy and product, in turns."""
    with _tf32(precision == "tf32"):
        gauge = gauge_of(PRECISIONS[precision], asked)
        gauge.read()  # the first products choose their kernels
        found = gauge.read()
    yield Rate(precision, found.copy_rate, found.matrix_rate)


def gauge_of(dtype: str, asked: Asked) -> Gauge:
    """The yardsticks in the dtype of a problem; rehearsed, next to nothing."""
    return Gauge(dtype, asked.device, size=2**16, side=32) if asked.rehearse else Gauge(dtype, asked.device)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


if __name__ == "__main__":
    main(cases)
