"""Pairwise engine: losses that are a sum over pairs of rows of a function of one similarity.

    L = c Σ_{i≠j} ℓ(s_ij),  s = U Uᵀ,   dL/dU_i = 2c Σ_{j≠i} ℓ'(s_ij) u_j,

U = rows of x (n, d) to length one, or centred first as well (then s is Pearson's correlation). Three launches:
`normalise` writes U, one sweep over tiles of S gives loss and dU together (S tile, epilogue, G tile, dU += G U),
`chain_rule` takes dU back through the normalisation. No n×n buffer exists.

Rows that lie on several processes: x is there on all of them, own rows first, and the sweep and `chain_rule` are of
those against all. The other half of a pair is another's, and dU_i is twice the anchor's side: only the loss, 4 bytes,
is summed over processes.

Floor: 4·n²·d operations; U is read once per tile of rows, through L2.
"""
