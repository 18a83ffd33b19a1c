"""How items hold images: what stored parameters mean, from the first encoding to the file."""
