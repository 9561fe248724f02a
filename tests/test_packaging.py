"""What gets installed: every folder of code and data, under fer_fast and nowhere else, importable without Triton."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS, PROJECT = PYPROJECT["tool"]["setuptools"], PYPROJECT["project"]
# Folder at the top of the repository -> where it installs.
FOLDERS = {"fer_fast": "fer_fast"} | {f: name.replace(".", "/") for name, f in SETUPTOOLS["package-dir"].items()}
MEASUREMENTS = {ROOT / "bench" / "results", ROOT / "bench" / "charts"}  # stay in the repository


def files() -> dict[str, Path]:
    """Every file of code and data by the path it installs under."""
    return {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}": path
        for folder, target in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and MEASUREMENTS.isdisjoint(path.parents)
    }


def modules() -> list[str]:
    """Every module by its installed name, but for those that run a program when imported."""
    names = (name.removesuffix(".py").removesuffix("/__init__") for name in files() if name.endswith(".py"))
    return sorted(name.replace("/", ".") for name in names if not name.endswith("__main__"))


def test_readers_folders_install_inside_the_package():
    assert {"kernels": "fer_fast/kernels", "reference": "fer_fast/reference"}.items() <= FOLDERS.items()
    assert all(target.partition("/")[0] == "fer_fast" for target in FOLDERS.values())


def test_package_list_equals_the_folders_on_disk():
    folders = {name.rpartition("/")[0].replace("/", ".") for name in files() if name.endswith("/__init__.py")}
    assert sorted(SETUPTOOLS["packages"]) == sorted(folders)


def test_every_folder_with_code_is_a_package():
    with_code = {path.parent for path in files().values() if path.suffix == ".py"}
    assert [folder for folder in sorted(with_code) if not (folder / "__init__.py").exists()] == []


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, unpacked as an installer does. Built in a copy of the repository: a build leaves folders behind."""
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("building needs setuptools 77, the first that reads the license as pyproject.toml states it")
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    run = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site-packages")
    return out / "site-packages"


def run_in(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code that finds the packages of `folder` before any installed ones."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_wheel_holds_every_file_under_the_package_and_nothing_else(unpacked: Path):
    package, metadata = sorted(unpacked.iterdir())
    assert (package.name, metadata.suffix) == ("fer_fast", ".dist-info")
    installed = {path.relative_to(unpacked).as_posix() for path in package.rglob("*") if path.is_file()}
    assert installed == files().keys()


def test_wheel_brings_its_command_and_license(unpacked: Path):
    (metadata,) = unpacked.glob("*.dist-info")
    assert "fer-fast = fer_fast.cli:main" in (metadata / "entry_points.txt").read_text()
    assert list(metadata.rglob("LICENSE"))


def test_unpacked_wheel_imports_and_takes_no_global_name(unpacked: Path):
    code = """
import importlib.util, pathlib, sys
import fer_fast.kernels.contrastive.launch, fer_fast.reference
for module in (fer_fast, fer_fast.kernels, fer_fast.reference):
    assert pathlib.Path(module.__file__).is_relative_to(sys.argv[1]), module
assert importlib.util.find_spec("kernels") is None and importlib.util.find_spec("reference") is None
"""
    run = run_in(unpacked, code, str(unpacked))
    assert run.returncode == 0, run.stderr


WITHOUT_TRITON = """
import importlib, sys

class NoTriton:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTriton())
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not any(name.partition(".")[0] == "triton" for name in sys.modules)
"""


# The kernels, and the count of what they do in Triton's interpreter.
NEED_TRITON = ("fer_fast.kernels", "fer_fast.bench.audit_traffic")


def test_everything_but_the_kernels_imports_without_triton(unpacked: Path):
    names = [name for name in modules() if not name.startswith(NEED_TRITON)]
    run = run_in(unpacked, WITHOUT_TRITON, *names)
    assert run.returncode == 0, run.stderr


def distributions(requirements: list[str]) -> set[str]:
    """Their names, in one spelling, but for those of extras."""
    needed = [line for line in requirements if "extra ==" not in line]
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in needed}


def extra_modules() -> list[str]:
    """Modules by which the extra `train`'s packages are imported, but for those that come with torch itself."""
    extra = distributions(PROJECT["optional-dependencies"]["train"])
    extra -= distributions(importlib.metadata.requires("torch"))
    by_module = importlib.metadata.packages_distributions()
    found = {
        module for module, names in by_module.items() if extra & {name.lower().replace("_", "-") for name in names}
    }
    assert found >= {"cv2", "timm", "pyarrow", "sklearn", "yaml", "rich", "PIL"}
    return sorted(found)


def test_losses_need_torch_triton_and_numpy_alone():
    assert distributions(PROJECT["dependencies"]) == {"torch", "triton", "numpy"}
    assert {"bench", "dev", "export"} <= {
        name for name, of in PROJECT["optional-dependencies"].items() if "fer-fast[train]" in of
    }


WITHOUT_EXTRA = """
import sys

class NoExtra:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoExtra())
"""

A_STEP_OF_EVERY_LOSS = """
import torch
import fer_fast.functional, fer_fast.losses as losses
from fer_fast.compat import pml

x, y = torch.randn(12, 6), torch.arange(12) % 4
built = [losses.SoftmaxLoss(4, 6), losses.VariantLoss(4, 6), losses.MarginalLoss(), losses.ENSCLoss(), pml.NTXentLoss()]
loss = sum(loss(x.requires_grad_(), y) for loss in built) + losses.AdCorreLoss(4)(torch.stack([x, x.flip(1)]), y)
loss.backward()
assert x.grad.isfinite().all()
"""


def test_losses_run_without_the_trainer_s_packages(unpacked: Path):
    run = run_in(unpacked, WITHOUT_EXTRA + A_STEP_OF_EVERY_LOSS, *extra_modules())
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "command", ["train", "sweep", "eval", "verify", "predict", "export", "data", "table", "bench", "list"]
)
def test_the_command_says_what_to_install(unpacked: Path, command: str):
    code = f"{WITHOUT_EXTRA}\nfrom fer_fast.cli import main\nsys.exit(main([{command!r}, '--help']))"
    run = run_in(unpacked, code, *extra_modules())
    if run.returncode == 0:  # it needs none of them
        assert command == "list"
        return
    assert run.returncode == 2
    assert re.fullmatch(r"fer-fast: error: \w+ is not installed.*: pip install \"fer-fast\[train\]\"\n", run.stderr)
