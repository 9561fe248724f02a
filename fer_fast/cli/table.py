"""``fer-fast table``."""

import functools
import json
from collections import Counter
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from fer_fast.cli.parser import Parser
from fer_fast.cli.summary import say
from fer_fast.data import DATASETS
from fer_fast.suggest import one_of
from fer_fast.train.config import config_parser, recipe_layer, resolve
from fer_fast.train.network_size import embedding_sizes
from fer_fast.train.paper_runs import Finished, Result, place, read_runs, same_run
from fer_fast.train.papers import PAPERS, Cell, Paper, Recipe, Table, load_paper

DESCRIPTION = """Print the results tables of a paper, the numbers of finished runs below the published ones, and the
command that makes each row. A RUN is the folder of a run or of a study; several runs of a row are averaged. What a run
did otherwise than its row is said below the table."""
TITLE = 32  # characters of a row's title before it is broken
tell = functools.partial(say, columns=120)


def run(argv: list[str]) -> int:
    """Print the tables."""
    parser = Parser(prog="fer-fast table", description=DESCRIPTION)
    parser.add_argument("paper", metavar="PAPER", help=", ".join(PAPERS))
    parser.add_argument("runs", metavar="RUN", nargs="*", default=[], help="folder of a run or of a study")
    parser.add_argument("--table", metavar="N", help="one table alone, e.g. 8 or figure-6")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_intermixed_args(argv)  # a RUN may follow an option
    paper = load_paper(given.paper)
    tables = paper.tables
    if given.table is not None:
        label = one_of(given.table, tables, "--table")
        tables = {label: tables[label]}
    results, strays = place(paper, [run for folder in given.runs for run in read_runs(Path(folder))])
    for table in tables.values():
        if table.computed:
            results[table.name] = [_computed(paper, table)]
    if given.json:
        print(json.dumps(_as_dict(paper, tables, results, strays), indent=1))
        return 0
    tell(f"{paper.authors} {paper.year}: {paper.title}")
    tell(paper.note)
    for table in tables.values():
        _show(paper, table, results)
    for folder, why in strays.items():
        tell(f"{folder} is of no row here: {why}")
    return 0


def command(recipe: Recipe) -> str:
    """What makes a row, to be copied; DIR and FILE are the user's."""
    layer = recipe_layer(recipe.name)
    words = ["fer-fast train --recipe", recipe.name]
    words += ["--root DIR"] if DATASETS[layer["dataset"]].needs_root else []
    words += ["--test-root DIR"] if layer.get("test_dataset") else []
    words += [f"--folds {recipe.folds}"] if recipe.folds else []
    words += ["--model.weights FILE"] if recipe.weights else []
    return " ".join(words)


def _computed(paper: Paper, table: Table) -> Result:
    """The sizes of networks in place of a run's metrics."""
    config, _ = resolve(config_parser(), [], [recipe_layer(paper.name)])
    counts = {int(cell.metric.rpartition(".")[2]) for cells in table.rows.values() for cell in cells}
    return Result((Finished(Path(), Path(), embedding_sizes(config, counts), {}),))


def _show(paper: Paper, table: Table, results: dict[str, list[Result]]) -> None:
    ours = {name: results[name] for name in (table.name, *table.recipes) if name in results}
    otherwise = dict.fromkeys(result.differences for row in ours.values() for result in row if result.differences)
    marks = {words: ascii_lowercase[i % 26] * (i // 26 + 1) for i, words in enumerate(otherwise)}
    percent = all(cell.percent for cells in table.rows.values() for cell in cells)
    print()
    tell(f"{table.title}. {table.caption}{', %' if percent else ''}")
    if table.note:
        tell(table.note)
    print()
    _print_grid(table, results, marks)
    print()
    if table.computed:
        tell("Below the published numbers: ours.")
    elif ours:
        _say_runs(ours, marks)
    _print_commands(paper, table)


def _print_grid(table: Table, results: dict[str, list[Result]], marks: dict[str, str]) -> None:
    """Deviations stand beside the means where the terminal is wide enough, else below them; numbers are never cut."""
    console, boundless = Console(highlight=False), Console(width=10_000, highlight=False)
    beside, below = (_grid(table, results, marks, gap) for gap in " \n")
    if boundless.measure(beside).maximum <= console.width:
        console.print(beside)
    else:
        fits = boundless.measure(below).minimum <= console.width
        (console if fits else boundless).print(below)


def _grid(table: Table, results: dict[str, list[Result]], marks: dict[str, str], gap: str) -> Grid:
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    grid.add_column("", max_width=TITLE)
    for title in table.columns:
        grid.add_column(escape(title), justify="right")
    for title, cells in table.rows.items():
        grid.add_row(escape(title), *(_text(cell, _results(table, cell, results), marks, gap) for cell in cells))
    return grid


def _results(table: Table, cell: Cell, results: dict[str, list[Result]]) -> list[Result]:
    """The results that a cell shows; other methods' cells show none."""
    return results.get(cell.recipe.name if cell.recipe else table.name, []) if cell.metric else []


def _text(cell: Cell, results: list[Result], marks: dict[str, str], gap: str) -> str:
    """The published number, and below it each result of ours, its deviation after `gap`."""
    lines = [cell.text]
    for result in results:
        mean, deviation = _scaled(cell, result)
        text = "-" if mean is None else f"{mean:,.{cell.places}f}"
        text += "" if deviation is None else f"{gap}±{deviation:.{cell.places}f}"
        lines.append(text + (f" {marks[result.differences]}" if result.differences else ""))
    return "\n".join(lines)


def _scaled(cell: Cell, result: Result) -> list[float | None]:
    """Mean and deviation in the unit of the paper."""
    unit = 100 if cell.percent else 1
    return [None if value is None else unit * value for value in result.number(cell.metric)]


def _say_runs(ours: dict[str, list[Result]], marks: dict[str, str]) -> None:
    tell("Below the published numbers: means of these runs, ± the deviation over seeds, or over the folds of one seed.")
    for name, results in ours.items():
        for result in results:
            mark = f", {marks[result.differences]}" if result.differences else ""
            tell(f"  {name}: {_folders(result)}{mark}")
    for words, mark in marks.items():
        tell(f"  {mark}  {words}")
    for note in dict.fromkeys(note for results in ours.values() for result in results for note in result.notes):
        tell(f"  data: {note}")
    print()


def _folders(result: Result) -> str:
    counts = Counter(run.given for run in result.runs)
    return ", ".join(f"{given}{f' ({count} runs)' if count > 1 else ''}" for given, count in counts.items())


def _print_commands(paper: Paper, table: Table) -> None:
    if table.command:
        print(table.command)
    for recipe in table.recipes.values():
        first = same_run(paper, recipe)[0]
        print(command(recipe) + ("" if first == recipe.name else f"  # the same run as {first}"))
    layers = [recipe_layer(name) for name in table.recipes]
    options = {"--root": "dataset", "--test-root": "test_dataset"}
    roots = {option: dict.fromkeys(layer[key] for layer in layers if key in layer) for option, key in options.items()}
    if named := [f"{option} DIR: {', '.join(names)}" for option, names in roots.items() if names]:
        tell(f"{'; '.join(named)} (fer-fast data about NAME)")
    if files := dict.fromkeys(recipe.weights for recipe in table.recipes.values() if recipe.weights):
        tell(f"FILE: weights that you have, of {', '.join(files)}")


def _as_dict(
    paper: Paper, tables: dict[str, Table], results: dict[str, list[Result]], strays: dict[Path, str]
) -> dict[str, Any]:
    return {
        **{key: getattr(paper, key) for key in ("name", "authors", "year", "title", "note")},
        "tables": [_table_as_dict(table, results) for table in tables.values()],
        "strays": {str(folder): why for folder, why in strays.items()},
    }


def _table_as_dict(table: Table, results: dict[str, list[Result]]) -> dict[str, Any]:
    return {
        **{key: getattr(table, key) for key in ("name", "caption", "note", "command")},
        "cells": [
            {
                "row": row,
                "column": column,
                "published": cell.published,
                "percent": cell.percent,
                "metric": cell.metric,
                "recipe": cell.recipe and cell.recipe.name,
                "command": cell.recipe and command(cell.recipe),
                "results": [_result_as_dict(cell, result) for result in _results(table, cell, results)],
            }
            for row, cells in table.rows.items()
            for column, cell in zip(table.columns, cells, strict=True)
        ],
    }


def _result_as_dict(cell: Cell, result: Result) -> dict[str, Any]:
    mean, deviation = _scaled(cell, result)
    return {
        "mean": mean,
        "deviation": deviation,
        "runs": [str(run.folder) for run in result.runs],
        "differences": result.differences,
        "notes": result.notes,
    }
