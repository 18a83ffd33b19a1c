"""Which real images of a class are matched: those that cover it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.data.images.image_set import ImageSet
from distil.dataset.config import KMeans
from distil.dataset.protocols import Expected
from distil.dataset.selection.coresets import embedded, k_means


@dataclass
class KMeansSampler:
    """The images of a class nearest to the k-means centers of its embeddings, k = `settings.batch`, in the network in
    which they will be matched; the same ones for `settings.cluster_every` steps on that network.

    Where a class has no more images than that, all of them. Source: DREAM (Liu et al. 2023), section 3.2, and its
    released code. Differs: an image that is nearest to two centers is taken once, the next nearest for the other.
    """

    settings: KMeans
    real: ImageSet
    chosen: dict[int, Int[Tensor, " k"]] = field(default_factory=dict)
    """By class, positions in the image set, on the CPU."""

    @property
    def batch(self) -> int:
        return self.settings.batch

    def __call__(
        self, real: ImageSet, label: int, net: nn.Module, generator: torch.Generator, inner: int
    ) -> Float[Tensor, "b c h w"]:
        if inner % self.settings.cluster_every == 0 or label not in self.chosen:
            self.chosen[label] = self._choose(real, label, net, generator)
        return real.batch(self.chosen[label]).images

    def _choose(self, real: ImageSet, label: int, net: nn.Module, generator: torch.Generator) -> Int[Tensor, " k"]:
        members = real.by_class[label].cpu()
        if self.settings.cluster_pool:
            members = members[torch.randperm(len(members), generator=generator)[: self.settings.cluster_pool]]
        seed = int(torch.randint(2**31, (1,), generator=generator))
        if len(members) <= self.batch:
            return members
        return members[k_means(embedded(net, real, members), self.batch, seed)]

    def state(self) -> dict[str, Tensor]:
        """The chosen positions, one row a class; -1 where a class has fewer."""
        rows = torch.full((len(self.real.classes), self.batch), -1)
        for label, positions in self.chosen.items():
            rows[label, : len(positions)] = positions
        return {"sampler.chosen": rows}

    def expected(self, outer: int) -> dict[str, Expected]:
        shape = (len(self.real.classes), self.batch)
        return {"sampler.chosen": Expected(shape, -1, len(self.real) - 1, torch.int64)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        rows = tensors["sampler.chosen"].cpu()
        self.chosen = {label: row[row >= 0] for label, row in enumerate(rows)}
