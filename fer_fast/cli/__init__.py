"""The ``fer-fast`` command."""
