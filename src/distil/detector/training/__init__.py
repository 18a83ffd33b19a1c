"""Training a detector, with a teacher or without."""
