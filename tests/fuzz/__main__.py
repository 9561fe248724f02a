"""`python -m tests.fuzz --cases 100000 --seed 1`: as many random cases, and a line that repeats it for each failure."""

import argparse
import os
import sys
from collections import Counter
from multiprocessing import Pool
from pathlib import Path

os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / "helpers"), str(Path(__file__).parents[1])]

import conftest  # noqa: E402, F401 - the interpreter as tests have it

from fuzz_rule import failures  # noqa: E402

# Of a hundred cases: the interpreter takes a tenth of a second for a launch.
SHARES = {"blocked": 85, "triton": 5, "reference": 10}
CHUNK = 50


def part(job: tuple[int, range, str]) -> tuple[str, int, list[str]]:
    seed, numbers, backend = job
    return backend, len(numbers), list(failures(seed, numbers, backend))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this one alone")
    parser.add_argument("--backend", choices=SHARES, help="this one alone")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    given = parser.parse_args()
    jobs = []
    for backend in [given.backend] if given.backend else SHARES:
        count = given.cases if given.backend else given.cases * SHARES[backend] // 100
        numbers = range(count) if given.case is None else range(given.case, given.case + 1)
        jobs += [(given.seed, numbers[first : first + CHUNK], backend) for first in range(0, len(numbers), CHUNK)]
    done, wrong = Counter(), 0
    with Pool(given.processes) as pool:
        for backend, count, lines in pool.imap_unordered(part, jobs):
            done[backend] += count
            wrong += len(lines)
            for line in lines:
                print(line, flush=True)
    print(f"{wrong} wrong of {done.total()}: {', '.join(f'{count} {name}' for name, count in done.items())}")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
