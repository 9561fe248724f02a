"""The whole backward pass of a loss: its gradients, already computed, times one scalar that only the device knows.

Up to three tensors in one launch: at batch 64 a launch is what a backward costs. Floor: nothing for a tensor that is
scaled in place by one; else a gradient is read and written once.
"""
