"""``python -m bench``: the installed command, whose `--record` and `charts` find the repository's files from here."""

import sys

from fer_fast.cli import main

sys.exit(main(["bench", *sys.argv[1:]]))
