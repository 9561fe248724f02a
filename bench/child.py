"""Modules run as programs of their own: Triton decides at import whether it interprets."""

import json
import os
import subprocess
import sys


def command(module: str, *words: str) -> list[str]:
    """What runs a module with arguments."""
    return [sys.executable, "-W", "ignore", "-m", module, *words]


def lines(module: str, *words: str, **environment: str) -> list[dict]:
    """What a module prints when it is run with arguments: one JSON object a line."""
    words = command(module, *words)
    result = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {result.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in result.stdout.splitlines()]
