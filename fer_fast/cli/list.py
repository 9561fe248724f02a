"""``fer-fast list``."""

from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import print_table
from fer_fast.data import DATASETS
from fer_fast.registry import available
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.config import RECIPES


def run(argv: list[str]) -> int:
    """Print the names that the other commands take."""
    Parser(prog="fer-fast list", description="The names that the other commands take.").parse_args(argv)
    losses = ((row.name, row.cls, row.family, row.paper) for row in available())
    print_table(("loss", "class", "family", "source"), losses)
    print()
    backbones = ((name, str(info.feature_dim), info.source) for name, info in BACKBONES.items())
    print_table(("backbone", "features", "network"), backbones, right=("features",))
    print()
    print_table(("dataset", "description"), ((name, info.description) for name, info in DATASETS.items()))
    print()
    print_table(("recipe", "description"), RECIPES.items())
    return 0
