"""Each example runs as its docstring says, in seconds on a CPU, and learns."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
NEEDS = {
    "plain_loop.py": "torch",
    "lightning_module.py": "lightning",
    "hugging_face_trainer.py": "transformers",
    "accelerate_loop.py": "accelerate",
}


def test_every_example_is_run():
    of_use = "photographs.py"  # by tests/serve/test_in_use.py
    assert {path.name for path in FOLDER.glob("*.py")} == {*NEEDS, "data.py", of_use}


@pytest.mark.parametrize("name", NEEDS)
def test_example(name, tmp_path):
    if importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    assert f"python examples/{name}" in (FOLDER / name).read_text(encoding="utf-8")
    offline = {"HF_HUB_OFFLINE": "1", "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / name)]
    run = subprocess.run(command, cwd=tmp_path, env=os.environ | offline, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (accuracy,) = re.findall(r"^accuracy (.*)$", run.stdout, re.MULTILINE)
    assert float(accuracy) > 0.8  # of 7 classes
    assert list(tmp_path.iterdir()) == []
