"""The file of a run: one JSON object a line, on disk before the next is measured."""

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fer_fast.errors import InputError

from .. import rows
from .step import FINAL

KERNELS = rows.ROOT / "kernels"


class Record:
    """Rows of one chip, those of earlier runs first."""

    def __init__(self, path: Path, environment: dict[str, Any], rehearsal: bool):
        self.path = path
        self.environment = environment | {"kernels": kernels(), "rehearsal": rehearsal}
        self.rows = read(path) if path.exists() else []

    def add(self, step: str, line: dict[str, Any]) -> None:
        """Write one row down for good."""
        now = {"date": datetime.now(UTC).isoformat(timespec="seconds")}
        row = {"step": step, **line, **self.environment, **now}
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as lines:
            print(json.dumps(row, ensure_ascii=False), file=lines, flush=True)
            os.fsync(lines.fileno())

    def done(self, step: str) -> list[str]:
        """Cases of a step that this chip has answered with these kernels and this compiler."""
        return list(dict.fromkeys(row["case"] for row in self.ours(step) if row["status"] in FINAL))

    def ours(self, step: str) -> list[dict[str, Any]]:
        """Rows of a step from this chip, these kernels and versions."""
        same = ("chip", "kernels", "versions", "rehearsal")
        return [
            row
            for row in self.rows
            if row["step"] == step and all(row[name] == self.environment[name] for name in same)
        ]


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file. What a run was killed in the middle of, a last line without an end, is taken away."""
    text = path.read_text(encoding="utf-8")
    whole, _, rest = text.rpartition("\n")
    if rest:
        path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    found = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    return found


def kernels() -> str:
    """What says that two runs had the same kernels: the commit that last touched them and, where that does not say it
    all, a digest of their sources."""
    commit = rows.git("log", "-1", "--format=%h", "--", "kernels") if (rows.ROOT / ".git").exists() else ""
    if commit and not rows.git("status", "--porcelain", "--", "kernels"):
        return commit
    digest = hashlib.sha256()
    for path in sorted(KERNELS.rglob("*.py")):
        digest.update(path.relative_to(KERNELS).as_posix().encode() + path.read_bytes())
    return "-".join(filter(None, (commit, f"sources-{digest.hexdigest()[:8]}")))
