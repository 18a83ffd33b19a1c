"""Gradients of the classification loss with respect to a network's weights."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy


def matched_names(net: nn.Module, layers: str) -> list[str]:
    """Names of the weights whose gradients are matched.

    layers: "convolutions" for weights of four dimensions, "all" for those of two or more. Vectors (biases, norms) are
    never matched: before an instance norm their gradient is zero, and a cosine of it noise.
    """
    least = {"convolutions": 4, "all": 2}[layers]
    return [name for name, weight in net.named_parameters() if weight.dim() >= least]


def class_gradient(
    logits: Float[Tensor, "n k"],
    labels: Int[Tensor, " n"] | Float[Tensor, "n k"],
    weights: Sequence[Tensor],
    *,
    differentiable: bool,
) -> tuple[Tensor, ...]:
    """Gradient of the mean cross-entropy with respect to `weights`.

    labels: class indices or probabilities. differentiable: whether the result can be differentiated again.
    """
    return torch.autograd.grad(cross_entropy(logits, labels), weights, create_graph=differentiable)


def class_gradients_batched(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    images: Float[Tensor, "classes n c h w"],
    labels: Int[Tensor, "classes n"],
    *,
    others: Mapping[str, Tensor] | None = None,
) -> dict[str, Float[Tensor, "classes ..."]]:
    """class_gradient of every class in one vectorized pass: name -> one gradient a class, stacked.

    weights: the parameters of `net` to differentiate, by name. others: the rest of its parameters, where they are
    not the module's. Equal to the class-by-class gradients up to rounding; differentiable.
    """
    fixed = dict(others or {})

    def loss(current: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(net, fixed | dict(current), (x,)), y)

    return vmap(grad(loss), in_dims=(None, 0, 0))(dict(weights), images, labels)
