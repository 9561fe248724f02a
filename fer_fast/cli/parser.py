"""An argument parser whose errors are `InputError`s of one line."""

import argparse
import difflib
import re
from typing import NoReturn

from fer_fast.errors import InputError

_UNKNOWN = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """argparse, without abbreviations, naming the closest option where one is unknown."""

    def __init__(self, **keywords: object):
        super().__init__(allow_abbrev=False, **keywords)

    def error(self, message: str) -> NoReturn:
        if message.startswith(f"{_UNKNOWN}-"):
            name = message.removeprefix(_UNKNOWN).split()[0].split("=")[0]
            near = difflib.get_close_matches(name, self._option_string_actions, n=1)
            message = f"unknown option {name}" + (f" (did you mean {near[0]}?)" if near else "")
        raise InputError(message)


def underscored(arguments: list[str]) -> list[str]:
    """Options with dashes as they are called: --batch-size is --batch_size.

    Values stay as they are, and so do names below a mapping, such as those of losses.
    """
    return [
        re.sub(r"^--[^.=]+(\.[^.=]+)?", lambda name: f"--{name[0][2:].replace('-', '_')}", argument)
        for argument in arguments
    ]
