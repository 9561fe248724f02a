"""The report of a study."""

import html
from pathlib import Path
from typing import Any

from fer_fast.train.checkpoint import write_text


def write_study_report(
    path: Path, *, title: str, summary: dict[str, Any], histories: dict[str, list[dict[str, Any]]]
) -> None:
    """Write the runs of a study as a table in one HTML file.

    Args:
        path: the file to write.
        title: the headline.
        summary: what `fer_fast.train.study_summary.summarise` returns.
        histories: folder of a run -> rows of its log.jsonl.

    Raises:
        InputError: the file cannot be written.
    """
    columns = ("folder", "accuracy", "average_accuracy", "macro_f1", "val_accuracy", "epoch")
    rows = [
        columns,
        *(
            [*(run[key] for key in columns[:-1]), f"{run['epoch']} of {len(histories[run['folder']])}"]
            for run in summary["runs"]
        ),
    ]
    lines = ("<tr>" + "".join(f"<td>{html.escape(str(cell))}" for cell in row) for row in rows)
    name = html.escape(title)
    write_text(
        path,
        f'<!DOCTYPE html><meta charset="utf-8"><title>{name}</title><h1>{name}</h1><table>{"".join(lines)}</table>\n',
    )
