"""docs/in-use.md does what it says: its commands run one after the other, and so does its snippet."""

import glob
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fer_fast.cli import main
from untrained import untrained

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "in-use.md").read_text(encoding="utf-8")
ELSEWHERE = ("train", "demo", "eval", "compare")  # which need a trained run; tests of their own have them


def documented() -> list[list[str]]:
    """The commands, without those on the user's own data."""
    blocks = "".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL))
    lines = [shlex.split(line, comments=True) for line in blocks.splitlines() if "path/to" not in line]
    return [line[1:] for line in lines if line[0] == "fer-fast" and line[1] not in ELSEWHERE]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("in use")
    untrained(home / "runs" / "lmcl")
    subprocess.run([sys.executable, str(ROOT / "examples" / "photographs.py"), "photos"], cwd=home, check=True)
    return home


def test_every_command_runs(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    commands = documented()
    assert {line[0] for line in commands} == {"predict", "enrol", "export"}
    for line in commands:
        if ">" in line:
            line = line[: line.index(">")]
        given = [path for part in line for path in (sorted(glob.glob(part)) if "*" in part else [part])]
        assert main(given) == 0, capsys.readouterr().err
    for left in ("named/group.png", "named/predictions.csv", "named/film.mp4.csv", "curve.html", "exported/README.md"):
        assert (home / left).stat().st_size > 100


def test_the_snippet_runs(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    left: dict = {}
    exec(snippet, left)
    assert left["model"].classes[-1] == "anger"  # contempt was undone
    assert "missing.jpg: No such file" in capsys.readouterr().out
    assert (home / "runs" / "again" / "checkpoint.safetensors").exists()


def test_its_pictures_are_there():
    for path in re.findall(r"!\[.+?\]\((.+?)\)", TEXT):
        assert (ROOT / "docs" / path).stat().st_size < 300_000
