"""``fer-fast list``."""

from collections.abc import Iterator
from textwrap import fill, shorten

from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import print_table
from fer_fast.data import DATASETS
from fer_fast.registry import available
from fer_fast.suggest import one_of
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.config import RECIPES
from fer_fast.train.papers import PAPERS, Table, load_paper

WIDTH = 100  # characters of a line


def run(argv: list[str]) -> int:
    """Print the names that the other commands take."""
    parser = Parser(prog="fer-fast list", description="The names that the other commands take.")
    parser.add_argument("kind", nargs="?", metavar="|".join(KINDS), help="one of these; recipes with the papers' rows")
    kind = parser.parse_args(argv).kind
    if kind is not None:
        KINDS[one_of(kind, KINDS, "list")]()
        return 0
    for show in (_losses, _backbones, _datasets, _base_recipes):
        show()
        print()
    count = sum(len(load_paper(name).recipes) for name in PAPERS)
    print(f"{count} more recipes are rows of the papers' tables: fer-fast list recipes")
    return 0


def _losses() -> None:
    losses = ((row.name, row.cls, row.family, row.paper) for row in available())
    print_table(("loss", "class", "family", "source"), losses)


def _backbones() -> None:
    backbones = ((name, str(info.feature_dim), info.source) for name, info in BACKBONES.items())
    print_table(("backbone", "features", "network"), backbones, right=("features",))


def _datasets() -> None:
    print_table(("dataset", "description"), ((name, info.description) for name, info in DATASETS.items()))


def _base_recipes() -> None:
    print_table(("recipe", "description"), RECIPES.items())


def _recipes() -> None:
    _base_recipes()
    for paper in map(load_paper, PAPERS):
        print()
        print(fill(f"{paper.authors} {paper.year}, {paper.name}: {paper.title}", WIDTH))
        rows = (row for table in paper.tables.values() for row in _rows(table))
        print_table(("recipe", "row", "published"), rows, right=("published",))


def _rows(table: Table) -> Iterator[tuple[str, str, str]]:
    """Name, title and published number of each recipe of a table; of several numbers the first."""
    for recipe in table.recipes.values():
        numbers = [cell.text for cells in table.rows.values() for cell in cells if cell.recipe == recipe]
        more = f" (first of {len(numbers)})" if len(numbers) > 1 else ""
        yield (
            recipe.name,
            shorten(recipe.title or "all of it", WIDTH // 2, placeholder=" …", break_on_hyphens=False),
            numbers[0] + more,
        )


KINDS = {"losses": _losses, "backbones": _backbones, "datasets": _datasets, "recipes": _recipes}
