"""Time, memory and error of every loss of the registry beside its peers and its physical floor.

Installed as ``fer_fast.bench``, behind ``fer-fast bench``; ``python -m bench`` at the repository's root is the same
command. Rows measured on one chip are kept in ``bench/results/``, one JSON object a line.
"""
