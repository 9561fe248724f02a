"""Whole numbers in many small .npy files, one a file, as AffectNet keeps its annotations."""

import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fer_fast.data.lists import whole

MISSING, CORRUPT = -1, -2
_LONGEST = 1024  # bytes of a file that holds one number
_AT_ONCE = 1024  # files that one task reads
_THREADS = 16  # a disk in a network answers many at once


def read_scalars(paths: Sequence[str]) -> np.ndarray:
    """int64 (n,): the number in each file, MISSING where there is no file, CORRUPT where it holds anything else."""
    known: dict[bytes, int] = {}  # files that hold the same number are the same bytes

    def read(start: int) -> list[int]:
        numbers = []
        for path in paths[start : start + _AT_ONCE]:
            try:
                with open(path, "rb", buffering=0) as file:
                    data = file.read(_LONGEST)
            except FileNotFoundError:
                numbers.append(MISSING)
                continue
            except OSError:
                numbers.append(CORRUPT)
                continue
            if data not in known:
                known[data] = _scalar(data)
            numbers.append(known[data])
        return numbers

    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = list(pool.map(read, range(0, len(paths), _AT_ONCE)))
    return np.array([number for chunk in chunks for number in chunk], np.int64)


def _scalar(data: bytes) -> int:
    """The one number in a .npy file, written as a number or as text."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = headers[version](file)
        if math.prod(shape) != 1:
            return CORRUPT
        value = np.frombuffer(data, dtype, 1, file.tell())[0]  # refuses objects, as it unpickles nothing
    except Exception:  # the header is Python that is parsed: ValueError, SyntaxError, TokenError, RecursionError, ...
        return CORRUPT
    number = whole(value.decode("ascii", "replace") if isinstance(value, bytes) else str(value))
    return CORRUPT if number is None else number
