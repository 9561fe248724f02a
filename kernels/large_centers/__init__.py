"""Centers of many classes, or of wide features: nothing of size (n, C), no table of sums that a program holds.

    L = weight (Σ_i loss(‖x_i - c_y‖², S_i) / n + the term over centers alone),   S_i = Σ_{j≠y} ‖x_i - c_j‖²

with the losses of the class-table engine (:mod:`..class_table.centers`). Let o be the class farthest from the mean of
all, m and V the mean and the spread of the others. For another class than o

    S_i = ‖x - c_o‖² + (C-1) ‖x - m‖² + V - ‖x - c_y‖²,   and for o itself   S_i = (C-1) ‖x - m‖² + V,

so that a row costs O(d) whatever C is; only o could hold most of a spread, and then what is left would have no digits.
The same holds for Σ_j (x - c_j), of gradients and pushes, without V.

Limit: the push of a class is that of all rows less its own, in float32. Where nearly all of it is the own of the class
of o, whose rows lie among the others' centers, c_o is off by up to two roundings of α λ₁ Σ p ‖c_o - m‖, p over its
rows: by 1e-3 of its length where Σ p is 1e4. Sums that do not cancel would take another accumulator, or float64, in
the hot loop of `rows`; the class-table and the blocked engine, which keep sums by class, lose nothing.

`table_stats`: distances of the centers from a mean, for losses that ask for a spread; two reads of the table for one
that repels rows. `rows`: loss, dx, and weights of rows among those that push. `slices`: sums of slices, each within one
class, of rows in the order of a stable sort of their labels. `finish`: a class adds its slices to its rows beside them
and moves its center; the first program folds the loss. Partial sums are folded in a fixed order: the same bits.

Floor: x is read and dx written once; for an update x is read once more, and centers that move are read and written.
A row of 512 bfloat16 numbers takes 173 warp instructions for center loss and 510 for variant loss (sm_90, Triton 3.8).
"""
