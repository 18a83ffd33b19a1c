"""The class term of IDM and NCFM: a network that knows real images should recognize the synthetic ones."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distil.dataset.protocols import Targets


@dataclass(frozen=True)
class ClassificationObjective:
    """sum over classes of the mean cross-entropy of the synthetic images. Source: IDM (Zhao et al. 2023), equation 8;
    NCFM (Wang et al. 2025), its released code."""

    def targets(
        self, net: nn.Module, images: Float[Tensor, "k n c h w"], labels: Int[Tensor, " k"], seed: int
    ) -> Targets:
        """Nothing: real images do not enter."""
        return {}

    def loss(
        self, net: nn.Module, images: Float[Tensor, "k v c h w"], labels: Int[Tensor, " k"], targets: Targets
    ) -> Float[Tensor, ""]:
        """The cross-entropies, summed over classes; differentiable in the images."""
        views = images.shape[1]
        logits = net(images.flatten(0, 1))
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return cross_entropy(logits, labels.repeat_interleave(views), reduction="sum") / views
