"""Stochastic gradient descent and AdamW on plain lists of tensors.

They stand beside torch.optim because momenta are tensors that a checkpoint names, and weights may be those of many
networks, stacked.
"""

# pyright: reportPrivateImportUsage=false

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def sgd_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor],
    *,
    lr: float,
    momentum: float,
    weight_decay: float = 0.0,
) -> None:
    """One step in place: m <- momentum m + (g + weight_decay p); p <- p - lr m.

    params, grads, momenta: equally long, momenta start at zero. Equals torch.optim.SGD without dampening.
    """
    params, momenta = list(params), list(momenta)
    steps = torch._foreach_add(list(grads), params, alpha=weight_decay) if weight_decay else list(grads)
    if momentum:
        torch._foreach_mul_(momenta, momentum)
        torch._foreach_add_(momenta, steps)
        steps = momenta
    torch._foreach_add_(params, steps, alpha=-lr)


@torch.no_grad()
def adamw_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    *,
    step: int,
    lr: float,
    decays: Sequence[float],
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    """One step in place: m <- b1 m + (1 - b1) g; s <- b2 s + (1 - b2) g^2; p <- p - lr (d p + m' / (sqrt(s') + eps)),
    with m' and s' divided by one minus the power of their decay.

    params, grads, first, second, decays: equally long; first and second start at zero. step: counts from 1.
    Equals torch.optim.AdamW. Source: Loshchilov and Hutter 2019.
    """
    first, second, grads = list(first), list(second), list(grads)
    torch._foreach_lerp_(first, grads, 1 - betas[0])
    torch._foreach_mul_(second, betas[1])
    torch._foreach_addcmul_(second, grads, grads, 1 - betas[1])
    scale = (1 - betas[1] ** step) ** 0.5
    for param, mean, square, decay in zip(params, first, second, decays, strict=True):
        if decay:
            param.mul_(1 - lr * decay)
        param.addcdiv_(mean, (square.sqrt() / scale).add_(eps), value=-lr / (1 - betas[0] ** step))
