"""``fer-fast sweep``."""

from fer_fast.cli.train import start

ABOUT = {
    "prog": "fer-fast sweep",
    "usage": """fer-fast sweep --grid KEY=[VALUE,...] [--grid KEY=[VALUE,...] ...] [--seeds N] [--folds K]
                      [--resume] [any option of fer-fast train]""",
    "description": """Train every combination of values of configuration keys, each in a folder of its own, and rank
them by validation accuracy; the test split is reported beside it and takes no part in the choice. A key may lie below
a mapping: --grid "objective.options.lmcl.s=[20,30,40]".""",
}


def run(argv: list[str]) -> int:
    """Train every combination as the arguments say."""
    return start(argv, ABOUT, sweep=True)
