"""``fer-fast compare``."""

from pathlib import Path

from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import print_table, say
from fer_fast.train.compare import SHOWN, Run, caution, pairs_of, read_runs, write_comparison
from fer_fast.train.shown import counted
from fer_fast.written import check_free

DESCRIPTION = """Compare finished runs, or evaluations written with --out, on the same images: accuracies with their
intervals, and for every two McNemar's exact test of the images that one alone recognises, corrected by Holm's method
where there are several pairs. With --out also a page with what is confused more and less."""


def run(argv: list[str]) -> int:
    """Compare as the arguments say."""
    parser = Parser(prog="fer-fast compare", description=DESCRIPTION)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder of a run or an evaluation")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the page there, e.g. compare.html")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    given = parser.parse_intermixed_args(argv)
    if given.out is not None:
        check_free(given.out, given.force)
    runs = read_runs(given.runs)
    pairs = pairs_of(runs)
    print(f"{runs[0].predictions.split} split, {counted(len(runs[0].right), 'image')}\n")
    print_table(("run", *SHOWN), (_row(run) for run in runs), right=SHOWN)
    print()
    columns = ("gain", "first alone", "second alone", "p", *(["p, Holm"] if len(pairs) > 1 else []))
    rows = (
        (
            f"{pair.first.letter} → {pair.second.letter}",
            f"{pair.gain:+.4f}",
            *map(str, (pair.first_only, pair.second_only)),
            *(f"{p:.3g}" for p in (pair.p, pair.p_holm)[: len(columns) - 3]),
        )
        for pair in pairs
    )
    print_table(("pair", *columns), rows, right=columns)
    if said := caution(runs):
        say(said)
    if given.out is not None:
        write_comparison(given.out, runs, pairs)
        print(f"page: {given.out}")
    return 0


def _row(run: Run) -> tuple[str, ...]:
    """A number, and its interval where there is one."""
    bounds = run.metrics.get("intervals", {})
    spread = {key: " [{:.4f}, {:.4f}]".format(*bounds[key]) for key in bounds}
    values = ("-" if run.metrics[key] is None else f"{run.metrics[key]:.4f}{spread.get(key, '')}" for key in SHOWN)
    return (f"{run.letter}: {run.folder}", *values)
