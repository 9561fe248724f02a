"""The reference stands alone: what it imports, what it must never do, and under which name it may be imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fer_fast import reference
from strategies import LOSSES, make_batch

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "reference").glob("*.py"))


def imports(source: Path) -> set[str]:
    """Modules a file imports; those of its own package start with a dot."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_reference_imports_pytorch_and_itself_only(source: Path):
    own = {f".{path.stem}" for path in SOURCES}
    for module in imports(source):
        assert module in own or module.partition(".")[0] in {"torch", *sys.stdlib_module_names}, module


def test_everything_listed_is_public_and_documented():
    assert list(reference.__all__) == sorted(reference.__all__)
    for name in reference.__all__:
        assert getattr(reference, name).__doc__, name


class CountOperations(TorchDispatchMode):
    """Counts the operators PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", LOSSES)
def test_no_loop_over_samples_or_classes(name: str):
    def operations(n: int, num_classes: int) -> int:
        batch = make_batch([i % num_classes for i in range(n)], num_classes, bank=8)
        with CountOperations() as counter:
            LOSSES[name](batch)
        return counter.count

    assert operations(4, 2) == operations(40, 2) == operations(40, 5)


@pytest.mark.parametrize("name", ["reference", "kernels"])
def test_import_under_the_bare_name_is_refused(name: str):
    run = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert f"ImportError: import this package as fer_fast.{name}" in run.stderr


def test_reference_is_installed_inside_the_package():
    assert Path(reference.__file__).parts[-2:] == ("reference", "__init__.py")
    assert reference.__name__ == "fer_fast.reference"
    assert torch.equal(reference.center(torch.ones(1, 2), torch.tensor([0]), torch.zeros(1, 2)), torch.tensor(1.0))
