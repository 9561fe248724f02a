"""The tools of the CUDA toolkit, where they are installed, over a program of ours."""

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

from ..child import command
from .smallest import Watched
from .smallest import __name__ as SMALLEST

FOLDERS = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer", "/opt/nvidia/nsight-compute/*")


def find(name: str) -> str | None:
    """Where a tool is: on the path, or where the toolkit puts it."""
    usual = (path for folder in FOLDERS for path in sorted(Path("/").glob(f"{folder[1:]}/{name}"), reverse=True))
    return shutil.which(name) or next((str(path) for path in usual if path.is_file()), None)


def watch(tool: list[str], watched: Watched, seconds: float, folder: str, **environment: str) -> str:
    """What a tool and its program print over :mod:`.smallest`; on disk meanwhile, for it can be much.

    Raises `subprocess.TimeoutExpired`, with what they printed, after so many seconds.
    """
    with tempfile.TemporaryFile("w+", dir=folder, encoding="utf-8", errors="replace") as output:
        words = [*tool, *command(SMALLEST, json.dumps(asdict(watched)))]
        how = {"env": os.environ | environment, "stdout": output, "stderr": output, "timeout": seconds}
        try:
            subprocess.run(words, check=False, **how)
        except subprocess.TimeoutExpired as error:
            output.seek(0)
            error.output = output.read()
            raise
        output.seek(0)
        return output.read()
