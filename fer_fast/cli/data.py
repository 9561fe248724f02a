"""``fer-fast data``: check a folder, say what there is to know of a dataset, list what has been decoded."""

import argparse
import json
import sys
from itertools import chain
from typing import get_args

from fer_fast.cli.about import about, add_about
from fer_fast.cli.cache import add_cache, cache
from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import print_table, say
from fer_fast.data.check import CheckReport, check
from fer_fast.data.check_page import write_check_page
from fer_fast.data.listing import FaceChoice


def run(argv: list[str]) -> int:
    """Do as the arguments say; the exit status of a check is 1 where something is wrong with the data."""
    parser = Parser(prog="fer-fast data", description="Look at a dataset on disk, or read about one.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|about|cache")
    _add_check(actions)
    add_about(actions)
    add_cache(actions)
    given = parser.parse_args(argv)
    return ACTIONS[given.action](given)


def _add_check(actions: argparse._SubParsersAction) -> None:
    checker = actions.add_parser(
        "check",
        help="name the layout of a folder, count the classes, report what is wrong",
        description="Name the layout of a folder, count its images by part and class beside the published numbers, and "
        "report what is wrong with it. The exit status is 0 for clean data, 1 where there are problems, 2 for a folder "
        "that is no dataset or may be several.",
    )
    checker.add_argument("root", metavar="DIR", help="folder or file of the dataset")
    checker.add_argument("--dataset", metavar="NAME", help="which dataset it is, where the folder does not tell")
    checker.add_argument("--order", metavar="NAME", help="which order the class numbers have, where nothing tells")
    checker.add_argument("--faces", choices=get_args(FaceChoice), help="cut faces as --data.faces of training would")
    checker.add_argument("--json", action="store_true", help="print one JSON object")
    checker.add_argument("--out", metavar="FILE", help="write a page with faces of every class (report.html)")


def _check(given: argparse.Namespace) -> int:
    report = check(given.root, dataset=given.dataset, order=given.order, faces=given.faces)
    if given.json:
        print(json.dumps(report.as_dict(), indent=1))
    else:
        _show(report)
    if given.out:
        write_check_page(given.out, report, given.root)
        print(f"report: {given.out}", file=sys.stderr)
    return 1 if report.problems else 0


def _show(report: CheckReport) -> None:
    say(f"{report.dataset}: {report.layout}")
    if report.licence:
        say(f"licence: {report.licence}")
    _show_counts(report)
    for kind in ("subjects", "sequences", "unlabelled"):
        if (number := getattr(report, kind)) is not None:
            say(f"{kind}: {number}")
    for why, number in report.ignored.items():
        say(f"ignored: {number} {why}")
    for line in report.notes:
        say(f"note: {line}")
    for line in report.problems:
        say(f"problem: {line}")
    if not report.problems:
        say("no problems found")


def _show_counts(report: CheckReport) -> None:
    """Class by class the images that are here, and beside them the published ones where there are such."""
    columns = [
        (heading, sizes)
        for part, counts in report.counts.items()
        for heading, sizes in ((part, counts), ("published", report.published.get(part)))
        if sizes is not None
    ]
    names = dict.fromkeys(chain(report.classes, *(sizes for _, sizes in columns)))
    rows = [(name, *(str(sizes.get(name, 0)) for _, sizes in columns)) for name in names]
    rows.append(("total", *(str(sum(sizes.values())) for _, sizes in columns)))
    headings = [heading for heading, _ in columns]
    print()
    print_table(("class", *headings), rows, right=headings)
    print()


ACTIONS = {
    "check": _check,
    "about": lambda given: about(given.name),
    "cache": lambda given: cache(given.name, given.clear),
}
