"""`fer-fast bench distributed`: bytes that are foretold are those that go round."""

import json

from bench import distributed
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
    lines = capsys.readouterr().out.splitlines()
    assert sum("weighted-cluster" in line for line in lines) == 1
