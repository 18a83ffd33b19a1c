"""Labeled images: one file for each format they are read from."""
