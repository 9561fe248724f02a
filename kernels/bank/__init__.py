"""The memory bank's ring: one launch writes a batch over the oldest rows, where the device's own count says."""
