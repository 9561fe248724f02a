"""What the documents state can be found: every situation names tests that exist."""

import re
from pathlib import Path

from fer_fast.registry import LOSSES

ROOT = Path(__file__).resolve().parents[1]


def test_every_situation_is_held_by_tests_that_exist():
    exist = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    rows = [line for line in (ROOT / "docs" / "training-loops.md").read_text().splitlines() if line.startswith("| ")][
        1:
    ]
    assert len(rows) > 30
    for row in rows:
        *_, named, end = row.split("|")
        tests = re.findall(r"`(test_\w+)`", named)
        assert end == ""
        assert tests, row
        assert set(tests) <= exist, row


def test_what_travels_is_what_the_registry_says():
    text = (ROOT / "docs" / "distributed.md").read_text()
    for name, spec in LOSSES.items():
        (row,) = [line for line in text.splitlines() if line.startswith("| ") and f"`{name}`" in line]
        assert row.endswith(f"| {spec.communication.travels} |")
