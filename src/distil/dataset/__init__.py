"""Pillar 1: distil a dataset into a few images a class."""
