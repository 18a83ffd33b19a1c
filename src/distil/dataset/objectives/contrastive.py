"""UDD's category-wise feature contrastive loss: features of a class come near its own mean and leave the others'."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.dataset.objectives.feature import mean_embeddings
from distil.dataset.protocols import Targets
from distil.functional.contrast import contrastive_loss


@dataclass(frozen=True)
class ContrastiveObjective:
    """The contrastive loss of the synthetic images' mean embeddings against those of the real images of all classes.

    It compares all classes with each other, so that they must come together. Source: UDD.
    """

    temperature: float

    def targets(
        self, net: nn.Module, images: Float[Tensor, "k n c h w"], labels: Int[Tensor, " k"], seed: int
    ) -> Targets:
        """The mean embedding of each class."""
        return {"mean": mean_embeddings(net, images)}

    def loss(
        self, net: nn.Module, images: Float[Tensor, "k v c h w"], labels: Int[Tensor, " k"], targets: Targets
    ) -> Float[Tensor, ""]:
        """The loss over all classes; differentiable in the images."""
        means = [net.embed(one).float().mean(0) for one in images]  # pyright: ignore[reportCallIssue]
        return contrastive_loss(torch.stack(means), targets["mean"], self.temperature)
