"""Elements of a block, warps of a program, and programs to a multiprocessor."""

SCALE_BLOCK, SCALE_WARPS, SCALE_PROGRAMS = 2048, 4, 8
