"""Types as users meet them: a script that a checker passes, stubs that say what runs, help that shows it."""

import importlib.util
import inspect
import json
import os
import pydoc
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fer_fast import functional, losses
from fer_fast.compat import pml
from stubs import STUBS, stub

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("user_script.py")
CLASSES = [name for name in losses.__all__ if name not in ("MemoryBank", "available")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder that holds the package as an installer leaves it: checkers do not see through editable installs."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "fer_fast").mkdir()
    mapped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    parts = {path.name: path for path in (ROOT / "fer_fast").iterdir()}
    parts |= {name.removeprefix("fer_fast."): ROOT / path for name, path in mapped.items()}
    for name, path in parts.items():
        (folder / "fer_fast" / name).symlink_to(path)
    return folder


@pytest.mark.skipif(importlib.util.find_spec("basedpyright") is None, reason="basedpyright is not installed")
def test_a_user_s_script_passes_and_its_mistakes_are_seen(installed: Path, tmp_path: Path):
    settings = {
        "include": [str(SCRIPT)],
        "extraPaths": [str(installed), *filter(None, sys.path)],
        "pythonVersion": ".".join(map(str, sys.version_info[:2])),
        "typeCheckingMode": "basic",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    told = json.loads(run.stdout)
    assert told["summary"]["filesAnalyzed"] == 1
    assert [(of["range"]["start"]["line"] + 1, of["message"]) for of in told["generalDiagnostics"]] == []


def test_the_script_runs():
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    run = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    total, *_ = run.stdout.split()
    assert float(total) > 0


@pytest.mark.parametrize("module", [losses, functional, pml], ids=lambda module: module.__name__)
def test_the_script_has_every_public_name(module):
    text = SCRIPT.read_text()
    prefix = module.__name__.rpartition(".")[2]
    assert [name for name in module.__all__ if f"{prefix}.{name}(" not in text] == []


@pytest.mark.parametrize("path", STUBS, ids=lambda path: path.parent.name)
def test_stubs_say_what_the_signatures_are(path: Path):
    assert path.read_text(encoding="utf-8") == stub(STUBS[path]), "run python tests/helpers/stubs.py"


@pytest.mark.parametrize("name", CLASSES)
def test_help_is_of_the_loss(name):
    cls = getattr(losses, name)
    assert "every call" not in inspect.getdoc(cls.forward), "nn.Module's text"
    assert "loss" in pydoc.render_doc(cls.forward)
    if name != "JointLoss":
        assert {"reduction", "backend"} <= inspect.signature(cls).parameters.keys()
        assert "reduction: Literal['mean'" in pydoc.plain(pydoc.render_doc(cls))
