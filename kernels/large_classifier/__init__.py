"""Classifiers of more than 64 classes, or of wide features: rows in chunks, products by the BLAS, one kernel between.

    f = head(x Wᵀ),   L_i = -log softmax(f_i)_{y_i},   G = d(Σ ω_i L_i)/d(x Wᵀ),   dx = G W,   dW = Gᵀ x

with the margins and the chain rules of the class-table engine's heads. `target_rows` finds, in float32, what each row
needs of its own class. Then, a chunk of rows after the other: x Wᵀ in the precision of x; `softmax_rows` turns a row's
products into its loss and, in their place, G; G W and Gᵀ x, the latter added in float32; `row_gradients` for rows that
were scaled to length one, and for heads of angles, whose target is kept out of the products. No (n, C) buffer exists.

Smoothed labels take a share of every class off its p: `softmax_rows` also sums W f. A scale that is learnt gets Σ p f.

Shards of the classes: each process visits all rows with its own classes, a contiguous range from `class_offset` on; a
row's three statistics are exchanged between :meth:`.launch.Sweep.survey` and :meth:`.launch.Sweep.finish`.

Floor: 6·n·C·d operations. A logit is written by the first product, read twice and written once by the kernel, and read
by two products (and once more for a bias): 6 (7) times its 2 or 4 bytes. dW (C, d) in float32 is read and written once
a chunk.
"""
