"""The memory bank's ring: one launch writes a batch over the oldest rows, wherever the device's own cursor stands."""
