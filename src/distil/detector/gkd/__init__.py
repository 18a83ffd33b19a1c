"""Global knowledge distillation (GKD)."""
