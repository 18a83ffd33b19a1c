"""Pure tensor mathematics: no state, no input or output, no settings."""
