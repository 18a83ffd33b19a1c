"""Stochastic gradient descent on plain lists of tensors.

It stands beside torch.optim.SGD because momenta are tensors that a checkpoint names, and weights may be those of many
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
