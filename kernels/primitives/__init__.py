"""Primitives of their own: the correlation matrix, distances to all centers, and to all but the own, with gradients.

Distances are sums of squared differences, never ‖x‖² + ‖c‖² - 2 x·c: what is close in space stays exact.
"""
