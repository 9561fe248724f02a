"""``python -m fer_fast``: the ``fer-fast`` command, as torchrun starts it."""

from fer_fast.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
