"""The one exception that stands for a user's mistake."""


class InputError(ValueError):
    """What was given is wrong. The message is one line: what is wrong, where, and what is allowed.

    The command line prints it on standard error and exits with status 2.
    """
