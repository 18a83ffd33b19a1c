"""Distillation losses, one file a loss."""
