"""Gradient matching: synthetic images ask of a network's weights what the real images of their class ask."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.dataset.objectives.feature import mean_embeddings
from distil.dataset.protocols import Targets
from distil.functional.distances import gradient_distance
from distil.functional.gradients import class_gradient, class_gradients_batched, matched_names


@dataclass(frozen=True)
class GradientObjective:
    """sum over classes of D(grad L(real images of the class), grad L(synthetic images)), L the mean cross-entropy.

    distance, layers: see `config.GradientMatching`. every: whether targets hold the gradients of all weights, for
    networks that are trained by them, and not of the matched ones alone. means: whether they hold the mean embedding of
    each class as well, as "mean", for a loss beside this one.
    Distances are computed in float32 whatever the network's precision.
    Source: DC (Zhao, Mopuri and Bilen 2021), equations 7 and 10; IDC (Kim et al. 2022), section 4.
    """

    distance: Literal["cosine", "squared", "l1"]
    layers: Literal["all", "convolutions"]
    every: bool = False
    means: bool = False

    def targets(
        self, net: nn.Module, images: Float[Tensor, "k n c h w"], labels: Int[Tensor, " k"], seed: int
    ) -> Targets:
        """Gradients of the loss on the real images, by the name of the weight, one row a class."""
        parameters = dict(net.named_parameters())
        names = list(parameters) if self.every else matched_names(net, self.layers)
        if len(images) == 1:
            wanted = labels.expand(images.shape[1])
            weights = [parameters[name] for name in names]
            embedding = net.embed(images[0])  # pyright: ignore[reportCallIssue]
            logits = net.classifier(embedding)  # pyright: ignore[reportCallIssue]
            gradients = class_gradient(logits, wanted, weights, differentiable=False)
            mean = {"mean": embedding.detach().mean(0, keepdim=True).float()} if self.means else {}
            return {name: gradient[None] for name, gradient in zip(names, gradients, strict=True)} | mean
        constant = {name: weight.detach() for name, weight in parameters.items()}
        moving = {name: constant.pop(name) for name in names}
        every = labels[:, None].expand(-1, images.shape[1])
        found = class_gradients_batched(net, moving, images, every, others=constant)
        mean = {"mean": mean_embeddings(net, images)} if self.means else {}
        return {name: found[name] for name in names} | mean

    def loss(
        self, net: nn.Module, images: Float[Tensor, "k v c h w"], labels: Int[Tensor, " k"], targets: Targets
    ) -> Float[Tensor, ""]:
        """The distance of the gradients, summed over classes; differentiable in the images."""
        parameters = dict(net.named_parameters())
        names = matched_names(net, self.layers)
        if len(images) == 1:
            synthetic = labels.expand(images.shape[1])
            weights = [parameters[name] for name in names]
            gradients = class_gradient(net(images[0]), synthetic, weights, differentiable=True)
            rows = [gradient[None] for gradient in gradients]
        else:
            constant = {name: weight.detach() for name, weight in parameters.items()}
            moving = {name: constant.pop(name) for name in names}
            every = labels[:, None].expand(-1, images.shape[1])
            rows = list(class_gradients_batched(net, moving, images, every, others=constant).values())
        wanted = [_wide(targets[name]) for name in names]
        return gradient_distance(wanted, [_wide(row) for row in rows], self.distance)


def _wide(gradients: Float[Tensor, "classes rows ..."]) -> Float[Tensor, "all ..."]:
    """The rows of all classes, in float32 at least."""
    rows = gradients.flatten(0, 1)
    return rows.float() if rows.element_size() < 4 else rows
