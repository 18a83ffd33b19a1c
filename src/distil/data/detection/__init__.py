"""Images with boxes: one file for each format they are read from."""
