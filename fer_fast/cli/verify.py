"""``fer-fast verify``."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from fer_fast.cli.parser import Parser
from fer_fast.errors import printable
from fer_fast.train.folder import STUDY
from fer_fast.train.verify import Finding, Where, verify_run, verify_study

DESCRIPTION = """Open the data of a run, compare their digests, evaluate its checkpoint again, and compare every number.
Exit status: 0 everything holds, 1 something does not, 2 it cannot be verified."""


def run(argv: list[str]) -> int:
    """Verify as the arguments say."""
    parser = Parser(prog="fer-fast verify", description=DESCRIPTION)
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run, or of a study and all its runs")
    parser.add_argument("--root", metavar="DIR", help="folder of the dataset (default: where it was for training)")
    parser.add_argument("--test-root", metavar="DIR", help="folder of the dataset that is tested on, if another")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    given = parser.parse_args(argv)
    check = verify_study if (given.run / STUDY).exists() else verify_run
    return _show(given.run, check(given.run, Where(given.root, given.test_root, given.device)))


def _show(folder: Path, findings: Iterable[Finding]) -> int:
    """Print a line each and a conclusion; the exit status."""
    count: Counter[str] = Counter()
    for verdict, what, said, *_ in findings:
        count[verdict] += 1
        print(printable(f"{verdict:7}  {what:18}  {said}"), flush=True)
    if count["differs"]:
        words, status = f"does not hold: {count['differs']} of {count['differs'] + count['holds']} statements differ", 1
    elif count["failed"]:
        words, status = f"cannot be verified: {count['failed']} could not be looked at", 2
    else:
        words, status = f"holds: {count['holds']} statements", 0
    print(printable(f"{folder} {words}"))
    return status
