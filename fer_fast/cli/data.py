"""``fer-fast data check``."""

from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import print_table
from fer_fast.data.check import CheckReport, check


def run(argv: list[str]) -> int:
    """Check a folder; the exit status is 1 where something is wrong with the data in it."""
    parser = Parser(prog="fer-fast data", description="Look at a dataset on disk.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="check")
    checker = actions.add_parser(
        "check",
        help="name the layout of a folder, count the classes, report what is wrong",
        description="Name the layout of a folder, count its images by split and class, and report what is wrong with "
        "it. The exit status is 0 for clean data, 1 where there are problems, 2 for a folder that is no dataset.",
    )
    checker.add_argument("root", metavar="DIR", help="folder of the dataset")
    report = check(parser.parse_args(argv).root)
    _show(report)
    return 1 if report.problems else 0


def _show(report: CheckReport) -> None:
    print(f"{report.dataset}: {report.layout}\n")
    splits = list(report.counts)
    classes = list(dict.fromkeys(name for counts in report.counts.values() for name in counts))
    rows = [(name, *(str(report.counts[split].get(name, 0)) for split in splits)) for name in classes]
    rows.append(("total", *(str(sum(report.counts[split].values())) for split in splits)))
    print_table(("class", *splits), rows, right=splits)
    print()
    for split, digest in report.digests.items():
        print(f"digest of {split}: {digest}")
    print("\n".join(f"problem: {line}" for line in report.problems) or "no problems found")
