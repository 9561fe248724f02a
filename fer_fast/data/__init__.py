"""Data sets: generated faces, folders people have on disk, batched augmentation."""
