"""Ad-Corre engine: FD (NFD), MD and ED in O(n·d), from class sums of standardised rows.

|Φ - corr| = 1 - Φ corr and |1 + corr| = 1 + corr, so all three losses are linear in the correlations, and a sum of
correlations over pairs is a product of sums of unit rows. With û the standardised rows, s_c = Σ_{y=c} û,
W = Σ_c w_c s_c and U = Σ_c s_c, for each embedding

    FD = 2 (n-1) Σ_i w_i - (4 Σ_c w_c ‖s_c‖² - 2 W·U - 2 Σ_i w_i ‖û_i‖²),
    dFD/dû_i = -2 (4 w_c s_c - w_c U - W),   c = y_i.

1. `sums`, a sweep: mean and inverse length of each row, and partial sums of the classes, which PyTorch adds up.
2. `tables`, an embedding a program: FD and MD, and the tables (C, d) of those gradients.
3. `rows`, a second sweep, over the k embeddings a of a row at once, adds ED and writes

    ED = Σ_i k (k-1) + ‖A_i‖² - Σ_a ‖û_ai‖²,   A_i = Σ_a û_ai,   dED/dû_ai = 2 (A_i - û_ai),
    de = (g - û (û·g)) / ‖e - mean‖ + dMD/de,   g = d(FD + ED)/dû.

   PyTorch adds up the losses of embeddings and of ED's programs. ED alone is this sweep alone.

Nothing is centred again: g and û are. Nor are 16-bit rows centred before they are summed: s_c is then off by a
multiple of the row of ones, which centring the sums takes away; float32 would lose digits so.

Floor: e is read twice and its gradient written once, 3 k n d elements (705 MB at n = 65 536, k = 7, d = 256 in
bfloat16), and a few operations an element. Beside it the two moments of a row are written and read. Compiled for sm_90,
a row of 256 bfloat16 numbers takes 128 + 112 warp instructions with Triton 3.6, 130 + 115 with 3.8.
"""
