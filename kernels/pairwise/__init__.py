"""Pairwise engine: losses that are a sum over pairs of rows of a function of one similarity.

    L = c Σ_{i≠j} ℓ(s_ij),  s = U Uᵀ,   dL/dU_i = 2c Σ_{j≠i} ℓ'(s_ij) u_j,

U = rows of x (n, d) to length one, or centred first as well (then s is Pearson's correlation). Three launches:
`normalise` writes U, one sweep over tiles of S gives loss and dU together (S tile, epilogue, G tile, dU += G U),
`chain_rule` takes dU back through the normalisation. No n×n buffer exists.

Floor: 4·n²·d operations; U is read once per tile of rows, through L2.
"""
