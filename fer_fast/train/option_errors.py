"""What is wrong with an option, in words of its user."""

import difflib
import re

from jsonargparse import ArgumentParser

_PLAIN = (  # what jsonargparse says, and what a user reads
    (
        r"Does not validate .* Subtypes: \[(.*?)(, <class 'NoneType'>)?\] Errors: .* Given value: ",
        r"Expected a \1. Got value: ",
    ),
    (r"Expected a (typing\.)?Literal", "expected one of "),
    (r"Expected a (<class 'int'>|int)", "expected a whole number"),
    (r"Expected a <class '(\w+)'>", r"expected a \1"),
    (r'^Parser key "([^"]+)":', r"--\1:"),
)
_UNKNOWN_OPTION = re.compile(
    r"unrecognized arguments: --(?P<flag>[^\s=]+)|(Group '(?P<group>\S+)' does not accept o|O)ption '(?P<key>\S+)'"
)


def one_line(error: Exception, parser: ArgumentParser) -> str:
    """What a jsonargparse error says, in one line, with the closest option where one is unknown."""
    text = " ".join(str(error).split())
    for pattern, words in _PLAIN:
        text = re.sub(pattern, words, text)
    found = _UNKNOWN_OPTION.search(text)
    if not found:
        return text
    name = found["flag"] or ".".join(filter(None, (found["group"], found["key"])))
    options = [option.lstrip("-") for action in parser._actions for option in action.option_strings or [action.dest]]
    near = difflib.get_close_matches(name, options, n=1)
    dashes = "--" if found["flag"] else ""
    return f"unknown option {dashes}{name}" + (f" (did you mean {dashes}{near[0]}?)" if near else "")
