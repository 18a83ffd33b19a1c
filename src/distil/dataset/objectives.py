"""What a matching step minimises: pure functions of a network and two batches of one class."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distil.functional.distances import gradient_distance, mean_embedding_distance
from distil.functional.gradients import class_gradient
from distil.types import Batch


def real_gradient(net: nn.Module, weights: Sequence[Tensor], real: Batch) -> tuple[tuple[Tensor, ...], Tensor]:
    """The target of gradient matching: (gradient of the loss on real images, their mean embedding), both constant."""
    embedding = net.embed(real.images)  # pyright: ignore[reportCallIssue]
    logits = net.classifier(embedding)  # pyright: ignore[reportCallIssue]
    return class_gradient(logits, real.labels, weights, differentiable=False), embedding.detach().mean(0)


def gradient_matching(
    net: nn.Module, weights: Sequence[Tensor], target: Sequence[Tensor], synthetic: Batch, distance: str
) -> Float[Tensor, ""]:
    """Distance between the real gradient and that of the synthetic views, differentiable in the views.

    weights: the matched weights of `net`. target: from real_gradient. distance: "cosine", "squared" or "l1".
    Source: DC (Zhao, Mopuri and Bilen 2021), equations 7 and 10; IDC (Kim et al. 2022), section 4.
    """
    gradient = class_gradient(net(synthetic.images), synthetic.labels, weights, differentiable=True)
    return gradient_distance(target, gradient, distance)


def feature_matching(net: nn.Module, real: Batch, synthetic: Batch) -> Float[Tensor, ""]:
    """Squared distance between mean embeddings, differentiable in the synthetic views.

    Source: DM (Zhao and Bilen 2023), equation 4.
    """
    with torch.no_grad():
        target = net.embed(real.images)  # pyright: ignore[reportCallIssue]
    return mean_embedding_distance(target, net.embed(synthetic.images))  # pyright: ignore[reportCallIssue]
