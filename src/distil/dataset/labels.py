"""The labels that items carry."""

import torch
from jaxtyping import Int
from torch import Tensor


def hard_labels(classes: int, ipc: int) -> Int[Tensor, " {classes}*{ipc}"]:
    """The class of each item, class by class."""
    return torch.arange(classes).repeat_interleave(ipc)
