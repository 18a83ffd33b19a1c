"""How far training on synthetic images leads from where training on real images leads, and its gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

BatchLoss = Callable[[int, Sequence[Tensor]], Tensor]
"""Called with the number of a student's update and the student's weights: the training loss of that update."""


@dataclass(frozen=True)
class TrajectoryGradient:
    """The distance between the end of a student's training and that of an expert's, and its gradients."""

    loss: Float[Tensor, ""]
    leaves: tuple[Tensor, ...]
    """With respect to each of the learned tensors."""
    lr: Float[Tensor, ""]
    """With respect to the student's learning rate."""


def trajectory_distance(end: Sequence[Tensor], target: Sequence[Tensor], start: Sequence[Tensor]) -> Float[Tensor, ""]:
    """||end - target||^2 / ||start - target||^2 over all weights. Source: MTT (Cazenavette et al. 2022)."""
    return _squared(end, target) / _squared(start, target)


def _squared(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a - b).square().sum() for a, b in zip(one, other, strict=True)]).sum()


def student_weights(batch_loss: BatchLoss, start: Sequence[Tensor], lr: Tensor, steps: int) -> list[list[Tensor]]:
    """The student's weights before each of `steps` updates by gradient descent, and after the last; constant."""
    found = [[weight.detach() for weight in start]]
    for step in range(steps):
        weights = [weight.requires_grad_() for weight in found[-1]]
        gradient = torch.autograd.grad(batch_loss(step, weights), weights)
        found[-1] = [weight.detach() for weight in weights]
        found.append([weight - lr * part for weight, part in zip(found[-1], gradient, strict=True)])
    return found


def trajectory_gradient(
    batch_loss: BatchLoss,
    path: Sequence[Sequence[Tensor]],
    target: Sequence[Tensor],
    leaves: Sequence[Tensor],
    lr: Tensor,
    *,
    hold_weights: bool = False,
) -> TrajectoryGradient:
    """The gradient of `trajectory_distance` at the end of a student's training, update by update from the last: the
    graph of one update at a time is in memory, whatever their number.

    With L the distance, b the learning rate, w_i the weights before update i and g_i(x, w) the gradient of its loss:
    a_N = dL/dw_N; dL/dx = -b sum_i d<a_{i+1}, g_i(x, w_i)>/dx; dL/db = -sum_i <a_{i+1}, g_i>;
    a_i = a_{i+1} - b d<a_{i+1}, g_i(x, w)>/dw. Equal to differentiating through all updates at once (MTT).

    path: what `student_weights` returned for the same losses. leaves: the learned tensors on which the losses depend.
    hold_weights: take each g_i with its weights w_i as constants, so that all a_i are a_N.
    Source: TESLA (Cui et al. 2023), which holds the weights; the exact adjoint costs the same.
    """
    start, end = path[0], path[-1]
    scale = 2 / _squared(start, target)
    adjoint = [scale * (weight - goal) for weight, goal in zip(end, target, strict=True)]
    totals, of_lr = [torch.zeros_like(leaf) for leaf in leaves], torch.zeros_like(lr)
    for step in reversed(range(len(path) - 1)):
        weights = [weight.detach().requires_grad_() for weight in path[step]]
        gradient = torch.autograd.grad(batch_loss(step, weights), weights, create_graph=True)
        along = torch.stack([(a * g).sum() for a, g in zip(adjoint, gradient, strict=True)]).sum()
        wanted = [*leaves] if hold_weights else [*leaves, *weights]
        parts = torch.autograd.grad(along, wanted, allow_unused=True, materialize_grads=True)
        totals = [total - lr * part for total, part in zip(totals, parts, strict=False)]
        of_lr = of_lr - along.detach()
        if not hold_weights:
            adjoint = [a - lr * part for a, part in zip(adjoint, parts[len(leaves) :], strict=True)]
    return TrajectoryGradient(trajectory_distance(end, target, start), tuple(totals), of_lr)
