"""Distances between gradients, and between embeddings."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-6


def cosine_distance(real: Tensor, synthetic: Tensor) -> Float[Tensor, ""]:
    """Sum over output rows of 1 - cos(real row, synthetic row), for one weight of two or more dimensions.

    Source: DC (Zhao, Mopuri and Bilen 2021), equation 10, with the released code's 1e-6 beside the norms' product.
    """
    a, b = real.flatten(1), synthetic.flatten(1)
    return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + EPSILON)).sum()


def squared_distance(real: Tensor, synthetic: Tensor) -> Float[Tensor, ""]:
    """Sum of squared differences. Source: IDC's released code ("mse")."""
    return (real - synthetic).square().sum()


def l1_distance(real: Tensor, synthetic: Tensor) -> Float[Tensor, ""]:
    """Sum of absolute differences. Source: IDC's released code ("l1")."""
    return (real - synthetic).abs().sum()


DISTANCES = {"cosine": cosine_distance, "squared": squared_distance, "l1": l1_distance}


def gradient_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor], distance: str) -> Float[Tensor, ""]:
    """Sum over weights of the named distance ("cosine", "squared" or "l1") between two lists of gradients."""
    measure = DISTANCES[distance]
    return torch.stack([measure(a, b) for a, b in zip(real, synthetic, strict=True)]).sum()


def mean_embedding_distance(real: Float[Tensor, "n d"], synthetic: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Squared distance between the two mean embeddings. Source: DM (Zhao and Bilen 2023), equation 4."""
    return (real.mean(0) - synthetic.mean(0)).square().sum()
