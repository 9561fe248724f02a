"""`python -m tests.fuzz --cases 100000 --seed 1`: as many random cases, and a line that repeats it for each failure."""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # a GPU that was looked for otherwise is lost to forks
sys.path[:0] = [str(Path(__file__).parents[1] / "helpers"), str(Path(__file__).parents[1])]

import conftest  # noqa: E402, F401 - the interpreter as tests have it
import torch  # noqa: E402

from fuzz_rule import failures  # noqa: E402

# Of a hundred cases: the interpreter takes a tenth of a second for a launch.
SHARES = {"blocked": 85, "triton": 5, "reference": 10}
CHUNK = 50


def part(job: tuple[int, range, str, str]) -> tuple[str, int, list[str]]:
    seed, numbers, backend, device = job
    return backend, len(numbers), list(failures(seed, numbers, backend, device))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this one alone")
    parser.add_argument("--backend", choices=SHARES, help="this one alone")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="no more than these")
    given = parser.parse_args()
    ends, chunk, jobs = time.monotonic() + 60 * given.minutes, CHUNK if given.device == "cpu" else 1, []
    for backend in [given.backend] if given.backend else SHARES:
        count = given.cases if given.backend else given.cases * SHARES[backend] // 100
        numbers = range(count) if given.case is None else range(given.case, given.case + 1)
        parts = (numbers[first : first + chunk] for first in range(0, len(numbers), chunk))
        jobs += [(given.seed, part, backend, given.device) for part in parts]
    done, wrong = Counter(), 0
    # Forked, for what stands here is not found by a process of its own; one that dies is told of, and ends all.
    with ProcessPoolExecutor(given.processes, get_context("fork")) as pool:
        for job in as_completed([pool.submit(part, job) for job in jobs]):
            backend, count, lines = job.result()
            done[backend] += count
            wrong += len(lines)
            for line in lines:
                print(line, flush=True)
            if time.monotonic() > ends:
                pool.shutdown(cancel_futures=True)
                break
    print(f"{wrong} wrong of {done.total()}: {', '.join(f'{count} {name}' for name, count in done.items())}")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
