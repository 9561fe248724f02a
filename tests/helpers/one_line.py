"""The command line where it refuses something."""

from fer_fast.cli import main


def fails(arguments, capsys):
    """Run, and return the one line on standard error."""
    assert main([str(argument) for argument in arguments]) == 2
    line = capsys.readouterr().err
    assert line.startswith("fer-fast: error: ")
    assert line.count("\n") == 1
    return line
