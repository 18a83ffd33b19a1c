"""Sums over the processes that train together."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def processes() -> int:
    """How many processes train together."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def shared(amounts: Tensor, least: float = 1.0) -> Tensor:
    """What this process divides its sums by, so that processes together compute the mean over their common batch.

    max(least, the amounts summed over the R processes) / R, without gradient. The mean over processes of (own sum /
    this) is then (sum of all / amount of all), and so are the gradients, which processes average. One process:
    max(least, amounts). Every process has to call it equally often: it communicates.
    """
    amounts = amounts.detach()
    if processes() > 1:
        amounts = amounts.clone()
        torch.distributed.all_reduce(amounts)
    return amounts.clamp(min=least) / processes()


class _Total(torch.autograd.Function):
    """Sum over processes; the gradient of what all of them make of it comes back to each."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        torch.distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        gradient = gradient.clone()
        torch.distributed.all_reduce(gradient)
        return gradient


def total(values: Tensor) -> Tensor:
    """Sum over processes, with gradient."""
    return _Total.apply(values) if processes() > 1 else values  # pyright: ignore[reportReturnType]


def moments(maps: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "1 c 1 1"], Float[Tensor, "1 c 1 1"]]:
    """Mean and standard deviation of every channel over the images and cells of the batch (of all processes)."""
    count = total(maps.new_full((), float(maps.shape[0] * maps.shape[2] * maps.shape[3])))
    mean = total(maps.sum((0, 2, 3), keepdim=True)) / count
    variance = total((maps - mean).square().sum((0, 2, 3), keepdim=True)) / count
    return mean, (variance + 1e-8).sqrt()
