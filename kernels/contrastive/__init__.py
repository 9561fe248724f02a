"""Contrastive engine: SelfCon, SupCon, ESC and ENSC, loss and gradient, in five kernels (Zhu et al. 2022, eq. 3-6).

    L = Σ_i w_i (log D_i - 1/|P_i| Σ_{p∈P_i} s_ip),   s_ij = z_i·z_j/τ,   D_i = Σ_{a≠i} e^{s_ia} + Σ_m e^{s_im},

a over the batch (n, d), m over the bank (M, d), over all of it or its rows of other labels; rows with a negative label
are nowhere. w_i is 1 or a given weight where there is a positive, else 0. With P_ij = e^{s_ij}/D_i and
p_ij = [j ∈ P_i]/|P_i|:

    τ dL/dz_i = w_i Σ_m P_im z_m + Σ_{j≠i} (w_i P_ij + w_j P_ji - w_i p_ij - w_j p_ji) z_j
    τ dL/dτ = -Σ_i w_i (Σ_k P_ik s_ik - Σ_j p_ij s_ij),   k over all of D_i.

1. `survey` bounds all logits by b = max ‖row‖² / τ; NaN, which reaches the loss, where a row is not finite. Where b is
   small, as for unit rows and τ above 0.025 (0.1 in float16), no exponential can leave its range with one peak in place
   of each row's maximum.
2. `sweep` is flash attention with V = K: a tile of anchors passes over its share of batch and bank with a log-sum-exp
   in base 2, and O += P K over the bank. Few anchors: the keys are split over programs. Tiles off the diagonal and
   before the last need neither masks nor, with such a b, a running maximum; all others take both.
3. `combine` joins the shares in fixed order: log D, O, and of each tile of rows the losses, the weights that count and,
   where τ is learnt, its derivatives, which `finish` adds up. The sweep sums e^s·s beside e^s only then.
4. `batch_gradient` visits the pairs of the batch once, as anchors and as keys: S is symmetric, so both gradients are
   one product, and with b one exponential. It starts from the bank's O and writes dz; few anchors: dz in parts, which
   `add_parts` joins.

Rows that lie on several processes: batch and bank are there on all of them, own rows first (`own_first`), and a process
takes these for anchors: its grids are over n rows, its keys are all N. Between 3 and 4 goes one all-gather, 12 bytes a
row, of what 4 asks of the other rows, with each process's three sums behind its rows; so one without rows starts
nothing of 2 to 4 and has the loss. Losses of rows ("none") need no all-gather.
A bank in parts is the blocked engine's.

Floor: 4·n·M·d + 6·n²·d operations (against 4·n·(n+M)·d + 4·n²·d with the two gradients apart); the bank is read once
per tile of anchors, in its storage dtype, through L2: programs that run together read the same share of it. The survey
reads batch and bank once more.

Width and strides are constants of a kernel: a model has one of each, and the offsets of a tile's rows, folded into the
loads, then take no registers beside the 128 of an accumulator of 256 columns. For the same reason nothing is hoisted
out of the loops over keys (`disable_licm`).
"""
