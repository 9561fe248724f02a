"""What is found of rows before their pairs are visited: labels of 32 bits, and a bound on every logit.

    |s_ij| = scale · |z_i·k_j| <= b = scale · max ‖row‖²    over anchors z and keys k

With such a bound no running maximum is needed, and with labels of 32 bits a comparison is one instruction. b is inf
where that cannot be had: a row is very long or left out by a negative label, or a label does not fit; and NaN where a
row that counts is not finite, which then reaches the loss. A launch of its own, which reads each row once and writes 4
bytes a label; labels given in int32 are used where they lie.

Each program leaves the bound of its share, and PyTorch takes the largest. Not the kernels that read it: a loop whose
length depends on what a program's threads found together takes up to 90 instructions a tile more (sm_90, Triton 3.8).
"""
