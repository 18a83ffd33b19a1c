"""Characteristic function matching: embeddings of synthetic images are distributed as those of real ones."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from distil.dataset.protocols import Targets
from distil.functional.characteristic import characteristic_function, distance_to


@dataclass(frozen=True)
class CharacteristicObjective:
    """scale * sum over classes of the distance between the characteristic functions of the embeddings, at frequencies
    drawn from N(0, I) in each step, the same for all classes.

    frequencies, amplitude, phase, scale: see `config.CharacteristicMatching`.
    Source: NCFM (Wang et al. 2025), without the adversary that learns the frequencies' distribution, which its released
    configurations for 32 x 32 images leave out. Differs: the release draws frequencies for each class anew.
    """

    frequencies: int = 4096
    amplitude: float = 0.5
    phase: float = 0.5
    scale: float = 300.0

    def targets(
        self, net: nn.Module, images: Float[Tensor, "k n c h w"], labels: Int[Tensor, " k"], seed: int
    ) -> Targets:
        """Real and imaginary part of each class's characteristic function, and the seed of the frequencies."""
        with torch.no_grad():
            rows = [normalize(net.embed(one).float()) for one in images]  # pyright: ignore[reportCallIssue]
            at = self._drawn(seed, rows[0])
            parts = [characteristic_function(each, at) for each in rows]
        real, imaginary = (torch.stack(part) for part in zip(*parts, strict=True))
        return {"real": real, "imaginary": imaginary, "seed": torch.full((len(images),), seed, device=images.device)}

    def loss(
        self, net: nn.Module, images: Float[Tensor, "k v c h w"], labels: Int[Tensor, " k"], targets: Targets
    ) -> Float[Tensor, ""]:
        """The distances, summed over classes; differentiable in the images."""
        rows = [net.embed(one) for one in images]  # pyright: ignore[reportCallIssue]
        rows = [each if each.dtype == torch.float64 else each.float() for each in rows]
        at = self._drawn(int(targets["seed"][0]), rows[0])
        losses = [
            distance_to(real.to(each), imaginary.to(each), each, at, self.amplitude, self.phase)
            for each, real, imaginary in zip(rows, targets["real"], targets["imaginary"], strict=True)
        ]
        return self.scale * torch.stack(losses).sum()

    def _drawn(self, seed: int, like: Float[Tensor, "n d"]) -> Float[Tensor, "frequencies d"]:
        generator = torch.Generator(like.device).manual_seed(seed)
        size = (self.frequencies, like.shape[1])
        return torch.randn(size, generator=generator, device=like.device).to(like.dtype)
