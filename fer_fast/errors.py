"""The one exception that stands for a user's mistake, and text that is fit to be shown."""


class InputError(ValueError):
    """What was given is wrong. The message is one line: what is wrong, where, and what is allowed.

    The command line prints it on standard error and exits with status 2.
    """


def printable(text: str) -> str:
    """`text` with what would steer a terminal, or cannot be encoded, spelled out: one line, readable in its order."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
