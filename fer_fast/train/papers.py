"""The results tables of the papers: what they print, and the recipe of every row that is trained."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

from fer_fast.errors import InputError
from fer_fast.suggest import one_of
from fer_fast.train.nested import placed, read_yaml

PAPERS = ("variant", "weighted-cluster", "ad-corre", "lmcl", "ecan")


@dataclass(frozen=True)
class Recipe:
    """What trains one row of a table, or one cell of a grid.

    Attributes:
        name: paper/table/row, or paper/table where the whole table is one run.
        title: the row in the paper's words.
        base: the recipe of the paper that `settings` are laid over.
        settings: configuration keys, nested as in a recipe file.
        folds: how many folds the paper averages over; 0 for one run.
        weights: what the run starts from, a file that the user has to have; None for fresh weights.
    """

    name: str
    title: str
    base: str
    settings: dict[str, Any]
    folds: int = 0
    weights: str | None = None


@dataclass(frozen=True)
class Heading:
    """A row or a column of a table as its file has it; a bare string there is the title.

    Attributes:
        title: in the paper's words.
        settings: configuration keys, dotted, of the runs of this row or column; None where it makes no run of its own.
        weights: as of `Recipe`.
        metric: what its cells show, in place of the table's.
        percent: whether its numbers are percentages; None as the table says.
    """

    title: str
    settings: dict[str, Any] | None = None
    weights: str | None = None
    metric: str | None = None
    percent: bool | None = None


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        published: by the paper; None where it prints none.
        metric: path of the number in the metrics of a run, e.g. per_class.fear.recall; confusion.fear.anger is the
            share of fear taken for anger.
        percent: whether the paper prints it as a percentage.
        places: decimals that the paper prints in this column.
        recipe: what makes it; None where it is not trained, or another method's.
    """

    published: float | None
    metric: str = ""
    percent: bool = True
    places: int = 0
    recipe: Recipe | None = None

    @property
    def text(self) -> str:
        """The published number."""
        return "-" if self.published is None else f"{self.published:,.{self.places}f}"


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: paper/label, e.g. variant/8 or ad-corre/figure-6.
        caption, note: what it shows, and what to know of its numbers.
        columns: titles.
        rows: title -> cells; other methods last.
        command: what makes all of it; None where its recipes do.
        computed: whether it is counted from the networks.
        enrol: how classes are enrolled first, as `fer_fast.serve.custom_classes` says it; {} for none.
        trained: the recipe whose run they are enrolled in, if any.
    """

    name: str
    caption: str
    note: str | None
    columns: tuple[str, ...]
    rows: dict[str, tuple[Cell, ...]]
    command: str | None
    computed: bool
    enrol: dict[str, Any]
    trained: str | None

    @property
    def title(self) -> str:
        """As the paper refers to it: Table 8, Figure 6."""
        label = self.name.rpartition("/")[2]
        return label.replace("-", " ").capitalize() if "-" in label else f"Table {label}"

    @functools.cached_property
    def recipes(self) -> dict[str, Recipe]:
        """What is trained for it, by name."""
        return {cell.recipe.name: cell.recipe for cells in self.rows.values() for cell in cells if cell.recipe}


@dataclass(frozen=True)
class Paper:
    """One paper: who, when, what, what to know of all its numbers, and its tables by label."""

    name: str
    authors: str
    year: int
    title: str
    note: str
    tables: dict[str, Table]

    @functools.cached_property
    def recipes(self) -> dict[str, Recipe]:
        """What is trained for it, by name."""
        return {name: recipe for table in self.tables.values() for name, recipe in table.recipes.items()}


@dataclass(frozen=True)
class _Written:
    """A table as its file has it.

    A run is a row and a column that have settings: its configuration is the paper's recipe, then the settings of table,
    column and row. Its name joins theirs, the column's first unless `name` says otherwise.

    Attributes:
        caption, note: of `Table`.
        columns, rows: name -> title or keywords of `Heading`.
        values: name of a row -> its numbers.
        others: title -> numbers of what is not trained here.
        metric: path of a cell's number, where {row} and {column} stand for the names.
        settings, weights: of all rows.
        by_column: configuration key -> its value in each column.
        name: of a run.
        percent: whether the numbers are percentages.
        places: decimals; None as many as the numbers of a column have.
        protocol: folds, enrol, trained.
        command, computed: of `Table`.
    """

    caption: str
    columns: dict[str, Any]
    rows: dict[str, Any] = field(default_factory=dict)
    values: dict[str, list[float | None]] = field(default_factory=dict)
    others: dict[str, list[float | None]] = field(default_factory=dict)
    note: str | None = None
    metric: str = "accuracy"
    settings: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    by_column: dict[str, list[Any]] = field(default_factory=dict)
    name: str = "{column}-{row}"
    percent: bool = True
    places: int | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    command: str | None = None
    computed: bool = False


@functools.cache
def load_paper(name: str) -> Paper:
    """A paper by its name.

    Raises:
        InputError: no such paper.
    """
    one_of(name, PAPERS, "paper")
    text = resources.files("fer_fast.train").joinpath("papers", f"{name}.yaml").read_text(encoding="utf-8")
    given = read_yaml(text)
    tables = {
        str(label): _table(f"{name}/{label}", given["recipe"], _Written(**table))
        for label, table in given["tables"].items()
    }
    return Paper(name, given["authors"], given["year"], given["title"], given["note"], tables)


def find_recipe(name: str) -> Recipe:
    """The recipe of a row.

    Raises:
        InputError: no such paper, table or row, or a table that is not trained.
    """
    paper = load_paper(one_of(name.partition("/")[0], PAPERS, "recipe: paper"))
    tables = {table.name: table for table in paper.tables.values()}
    label = "/".join(name.split("/")[:2])
    table = tables[one_of(label, tables, "recipe: table")]
    if not table.recipes:
        raise InputError(f"recipe: {label} is not trained; fer-fast table {paper.name} says what makes it")
    return table.recipes[one_of(name, table.recipes, "recipe")]


def _nested(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted keys, later layers over earlier ones, as the mapping of mappings that a recipe file holds."""
    items = (item for layer in layers for item in layer.items())
    return functools.reduce(lambda merged, item: placed(merged, *item), items, {})


def _table(name: str, base: str, written: _Written) -> Table:
    columns, rows = _headings(written.columns), _headings(written.rows)
    if rows.keys() != written.values.keys():
        raise ValueError(f"{name}: rows {list(rows)} and values {list(written.values)} differ")
    cells = {row.title: _cells(name, base, written, key, row, columns) for key, row in rows.items()}
    for title, values in written.others.items():
        cells[title] = [
            Cell(value, percent=_first(column.percent, written.percent))
            for value, column in zip(values, columns.values(), strict=True)
        ]
    places = [_first(written.places, _places(column)) for column in zip(*cells.values(), strict=True)]
    return Table(
        name,
        written.caption,
        written.note,
        tuple(column.title for column in columns.values()),
        {title: tuple(map(_printed, row, places)) for title, row in cells.items()},
        written.command,
        written.computed,
        written.protocol.get("enrol", {}),
        written.protocol.get("trained"),
    )


def _cells(
    table: str, base: str, written: _Written, row_name: str, row: Heading, columns: dict[str, Heading]
) -> list[Cell]:
    return [
        Cell(
            published,
            _first(row.metric, column.metric, written.metric).format(row=row_name, column=name),
            _first(row.percent, column.percent, written.percent),
            recipe=_recipe(table, base, written, {"row": (row_name, row), "column": (name, column)}, i),
        )
        for i, (published, (name, column)) in enumerate(zip(written.values[row_name], columns.items(), strict=True))
    ]


def _recipe(
    table: str, base: str, written: _Written, headings: dict[str, tuple[str, Heading]], index: int
) -> Recipe | None:
    """What makes the cell of a row and of the column of that index."""
    if written.command or written.computed:
        return None
    order = sorted(headings, key=written.name.index)
    own = [headings[key] for key in order if headings[key][1].settings is not None]
    by_column = {key: values[index] for key, values in written.by_column.items()}
    return Recipe(
        "/".join(filter(None, (table, "-".join(name for name, _ in own)))),
        ", ".join(heading.title for _, heading in own),
        base,
        _nested(written.settings, *(heading.settings for _, heading in own), by_column),
        written.protocol.get("folds", 0),
        _first(*(heading.weights for _, heading in headings.values()), written.weights),
    )


def _places(column: tuple[Cell, ...]) -> int:
    return max(len(str(cell.published).partition(".")[2]) for cell in column if cell.published is not None)


def _printed(cell: Cell, places: int) -> Cell:
    return replace(cell, places=places)


def _headings(given: dict[str, Any]) -> dict[str, Heading]:
    return {str(name): Heading(value) if isinstance(value, str) else Heading(**value) for name, value in given.items()}


def _first(*values: Any) -> Any:
    """The first that is not None, if any."""
    return next((value for value in values if value is not None), None)
