"""The commands of `distil`, a file for each part of the help text. Nothing heavy is imported before one runs."""
