"""The engines as loops over tiles of in-place PyTorch products, for any device: what a CPU user gets.

Functions have the signatures of the launchers of `fer_fast.kernels`: detached tensors in, the loss and the gradients of
the same pass out. No buffer grows with pairs, and memory beyond the gradients is a few tiles.
"""
