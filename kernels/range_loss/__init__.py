"""Range loss (Zhang et al. 2017): the k widest pairs of each class, the two nearest class means.

    L = α Σ_c K_c / (Σ_{j≤K_c} 1/D_cj) + β [M - D]₊

Rows are sorted by label on the device (labels are any int64, their number unknown to the host), so that a class is one
run of rows and the classes are numbered 0, 1, …; tables of classes have n places, of which the host cannot know how
many are used. `extremes` finds, for each row i, its k extreme partners j in (i, end_i): the widest within the class,
or for class means (k = 1) the nearest. Every distance is a sum of squared differences, so duplicates are at exactly 0,
and the k that count are not mistaken for their neighbours.

Of rows that lie on several processes each finds the partners of an even part of the sorted ones, wherever they came
from; one all-gather, 8·k bytes a row, brings them together. The rest every process does for all rows, and cuts dx.

Floor: Σ_c n_c²·d + C²·d differences, each half of the square of pairs; x read a few times; no n×n buffer.
"""
