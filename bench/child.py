"""Modules run as programs of their own: Triton decides at import whether it interprets."""

import json
import os
import subprocess
import sys


def lines(module: str, *words: str, **environment: str) -> list[dict]:
    """What a module prints when it is run with arguments: one JSON object a line."""
    command = [sys.executable, "-W", "ignore", "-m", module, *words]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {result.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in result.stdout.splitlines()]
