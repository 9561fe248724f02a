"""``fer-fast data cache``."""

import argparse
import json
import shutil

from fer_fast.cli.summary import print_table
from fer_fast.data.cache import folder, kept


def add_cache(actions: argparse._SubParsersAction) -> None:
    """Adds the action to those of ``fer-fast data``; `cache` does it."""
    parser = actions.add_parser(
        "cache",
        help="what has been decoded and where it is kept; --clear removes it",
        description="List the decoded images that are kept for the next run, and whose they are. They are made again "
        "when they are needed. The environment variable FER_FAST_CACHE names another folder.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of one dataset (default: of all)")
    parser.add_argument("--clear", action="store_true", help="remove what is listed")


def cache(name: str | None, clear: bool) -> int:
    """Print a line for each part of a dataset that is kept, and remove them if asked to; the exit status is 0."""
    found = [each for each in kept() if name in (None, each.about["dataset"])]
    print(f"{folder()}\n")
    rows = []
    for each in found:
        how = json.loads(each.about["preparation"])
        pixels = f"{how['size']}×{how['size']}×{how['channels']} {how['faces']}"
        rows.append(
            (each.about["dataset"], each.about["part"], pixels, f"{each.size / 1e6:,.1f}", each.about["licence"])
        )
    rows.append(("total", "", "", f"{sum(each.size for each in found) / 1e6:,.1f}", ""))
    print_table(("dataset", "part", "pixels", "MB", "licence"), rows, right=("MB",))
    if clear:
        for each in found:
            shutil.rmtree(each.path)
        print(f"\nremoved: {len(found)}")
    return 0
