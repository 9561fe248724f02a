"""Losses of rows x (n, d) against a table of at most 64 classes: a classifier, a loss of the center family, or both.

    L = Σ_i ω_i cross-entropy(logits(W x_i), y_i) + weight · (Σ_i ω_i loss(‖x_i - c_y‖², S_i) + constant(c))

Rows meet the table and never each other, so all is one sweep over rows, and a fold:

    table_stats   what depends on the tables alone (lengths, unit rows, spread, means of the others), and the two sums
                  that the first gradient needs: Σ W_y of a weighted mean, MVA's distances
    rows          loss, dx, and each program's partial sums: one read of x and one write of dx
    sums          where the sums do not fit beside the rows: weightsᵀ x from a second read
    finish        folds the blocks in their order: the loss, dW, db, the centers moved. Between the blocks and this
                  other processes may add theirs
    small         all of it by one program, for n <= 128

Floor: n·d elements read and written, n labels read; 6·n·C·d operations of a classifier, 2·n·C·d of sums. One launch at
n <= 128; else rows and finish, table_stats where there is something to find, and sums where they are many. The same
bits on every run; a class whose sums hold NaN or inf keeps its center. What a call does not ask for (weights ω of rows,
soft labels, smoothing, losses of rows, a setting that is learnt) is None, and not compiled. A file a loss: `heads/` and
`centers/`.
"""
