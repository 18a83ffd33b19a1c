"""Distil a detector: adapters, prototypes, knowledge, training, preflight, and the comparison at equal budget."""
