"""`fer-fast bench distributed`: bytes that are foretold are those that go round."""

import json
from io import StringIO

from fer_fast.bench import distributed
from rich.console import Console

from fer_fast.registry import LOSSES


def test_bytes_are_as_foretold(tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    assert distributed.run(["--processes", "2", "--shape", "n=30,d=24,k=2", "--seconds", "0", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["loss"] for row in rows] == list(LOSSES)
    for row in rows:
        assert row["counted"] == row["predicted"], row["loss"]
        assert row["error"] < 1e-5
        assert row["seconds"] > 0
    shown = capsys.readouterr().out  # 80 columns wide
    assert sum("weighted-cluster" in line for line in shown.splitlines()) == 1
    assert "…" not in shown


def test_table_of_long_numbers_is_whole_in_80_columns():
    row = distributed.SharedRow("weighted-softmax", 16, "", "blocked", 0.1234, 0.1234, [1], [8_388_608], [8_388_608], 0)
    console = Console(width=80, file=StringIO())
    console.print(distributed.table([row], distributed.SHAPE))
    assert "…" not in console.file.getvalue()
    assert "weighted-softmax" in console.file.getvalue()
