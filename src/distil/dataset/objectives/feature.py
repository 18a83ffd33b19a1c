"""Feature (distribution) matching: synthetic images have the mean embedding of the real images of their class."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.dataset.protocols import Targets
from distil.functional.distances import mean_embedding_distance


@dataclass(frozen=True)
class FeatureObjective:
    """sum over classes of || mean embedding of the real images - mean embedding of the synthetic images ||^2.

    Source: DM (Zhao and Bilen 2023), equation 4.
    """

    def targets(
        self, net: nn.Module, images: Float[Tensor, "k n c h w"], labels: Int[Tensor, " k"], seed: int
    ) -> Targets:
        """The mean embedding of each class."""
        return {"mean": mean_embeddings(net, images)}

    def loss(
        self, net: nn.Module, images: Float[Tensor, "k v c h w"], labels: Int[Tensor, " k"], targets: Targets
    ) -> Float[Tensor, ""]:
        """The squared distances, summed over classes; differentiable in the images."""
        rows = []
        for target, synthetic in zip(targets["mean"], images, strict=True):
            embedding = net.embed(synthetic).to(target.dtype)  # pyright: ignore[reportCallIssue]
            rows.append(mean_embedding_distance(target[None], embedding))
        return torch.stack(rows).sum()


@torch.no_grad()
def mean_embeddings(net: nn.Module, images: Float[Tensor, "k n c h w"]) -> Float[Tensor, "k d"]:
    """The mean embedding of the images of each class, in float32, constant."""
    return torch.stack([net.embed(one).float().mean(0) for one in images])  # pyright: ignore[reportCallIssue]
