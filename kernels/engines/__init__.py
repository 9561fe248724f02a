"""Triton engines: kernel and launcher, one file each."""
